import dataclasses
import json
import re
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf import ConvMixer
from convmixer_tf import data
from convmixer_tf.models import save_model
from convmixer_tf.models.additions import read_class_names
from convmixer_tf.models.additions import read_crop_fraction
from convmixer_tf.models.additions import read_orientation
from convmixer_tf.training import TrainConfig
from convmixer_tf.training import evaluate_function
from convmixer_tf.training import steps_per_epoch
from convmixer_tf.training import train_classifier
from convmixer_tf.training.classifier import check_classes
from convmixer_tf.training.classifier import evaluation_inputs
from convmixer_tf.training.classifier import training_inputs
from convmixer_tf.training.evaluation import main_metric
from convmixer_tf.training.inputs import distribute
from convmixer_tf.training.run_log import orientation_of_run

SIZE = 8  # pixels


@pytest.fixture(scope="module")
def digits():
    return [data.open_dataset("digits", split) for split in ("train", "test")]


@pytest.fixture(scope="module")
def batches(digits):
    """The evaluation images."""
    return list(data.evaluation_batches(digits[1], SIZE, 50))


def build_model(activation, classes=10):
    return ConvMixer(
        16,
        2,
        3,
        2,
        input_shape=(SIZE, SIZE, 3),
        classes=classes,
        classifier_activation=activation,
    )


def settings(**changes):
    common = {"epochs": 2, "steps_per_epoch": 22, "batch_size": 64}
    return TrainConfig(
        **{
            **common,
            "learning_rate": 0.02,
            "epsilon": 1e-8,
            "tensorboard": False,
            **changes,
        }
    )


def train_digits(directory, strategy, digits, **changes):
    changes = {"build_model": build_model, **changes}
    return train_classifier(
        changes.pop("config", settings()),
        changes.pop("build_model"),
        changes.pop("train_set", digits[0]),
        changes.pop("eval_set", digits[1]),
        changes.pop("augmentation", data.get_augmentation("none")),
        SIZE,
        directory,
        strategy,
        crop_fraction=1.0,
        notes=changes.pop("notes", None),
    )


@pytest.mark.slow
def test_it_learns_digits_into_a_file(tmp_path, one_device, digits):
    _, summary = train_digits(tmp_path, one_device, digits)
    assert summary["last"]["top1"] > 0.6
    path = tmp_path / "model.keras"
    assert read_class_names(path) == tuple("0123456789")
    model = keras.saving.load_model(path)
    batches = data.evaluation_batches(digits[1], SIZE, 50, crop_fraction=1.0)
    scores = evaluate_function(model.predict_on_batch, batches, 10)
    assert scores.images == len(digits[1])
    assert scores.top1 == pytest.approx(summary["last"]["top1"])
    assert scores.loss == pytest.approx(summary["last"]["loss"], rel=1e-4)
    card = (tmp_path / "model.md").read_text()
    assert f"| top-1 | {summary['last']['top1']:.2%} |" in card
    assert f"on {len(digits[1])} evaluation images" in card
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["augmentation"]["label_smoothing"] == 0
    assert config["image_size"] == SIZE
    assert config["orientation"] == read_orientation(path) == "exif"

    other = dataclasses.replace(data.get_augmentation("none"), flip=0.5)
    with pytest.raises(ValueError, match=r"augmentation was .*'flip': 0.0"):
        train_digits(tmp_path, one_device, digits, augmentation=other)
    renamed = [
        dataclasses.replace(part, class_names=tuple("abcdefghij"))
        for part in digits
    ]
    with pytest.raises(ValueError, match=r"class_names was \['0', .*'a', 'b'"):
        train_digits(tmp_path, one_device, renamed)
    with pytest.raises(ValueError, match=r"drop_path was None and is 0\.1"):
        train_digits(tmp_path, one_device, digits, notes={"drop_path": 0.1})


@pytest.mark.slow
def test_replicas_see_the_batch_of_one(one_device, two_replicas, digits):
    config = settings(accumulation_steps=2)

    def batches(strategy):
        load = training_inputs(
            config, digits[0], data.get_augmentation("none"), SIZE
        )
        replicas = strategy.num_replicas_in_sync
        inputs = distribute(
            strategy, lambda context: load(1, 3, context), 32 // replicas
        )
        images, labels = next(iter(inputs))
        parts = strategy.experimental_local_results(images)
        labels = strategy.experimental_local_results(labels)
        return np.concatenate(parts), np.concatenate(labels)

    one, two = batches(one_device), batches(two_replicas)
    assert one[0].shape == (32, SIZE, SIZE, 3)
    order_of = [np.lexsort(x.reshape(32, -1).T) for x in (one[0], two[0])]
    for left, right in zip(one, two, strict=True):
        left, right = left[order_of[0]], right[order_of[1]]
        np.testing.assert_array_equal(left, right)


@pytest.mark.slow
def test_evaluation_sees_every_image_once(two_replicas, digits):
    load = evaluation_inputs(digits[1], SIZE, 50, 1.0)
    total = 0
    for _, _, weights in distribute(two_replicas, load):
        for part in two_replicas.experimental_local_results(weights):
            assert part.shape == (25,)
            total += np.sum(part)
    assert total == len(digits[1]) == 360


def test_steps_per_epoch_counts_whole_batches(digits):
    assert steps_per_epoch(digits[0], 64) == 1437 // 64
    with pytest.raises(ValueError, match="`batch_size` must be at most 1437"):
        steps_per_epoch(digits[0], 1438)


def test_more_steps_than_images_are_an_error(tmp_path, one_device, digits):
    with pytest.raises(
        ValueError, match="`steps_per_epoch` must be at most 22"
    ):
        train_digits(
            tmp_path, one_device, digits, config=settings(steps_per_epoch=23)
        )


def test_other_classes_are_an_error(tmp_path, one_device, digits):
    eval_set = dataclasses.replace(digits[1], class_names=("a", "b"))
    message = r"have the same classes. Received: 0, 1, 2 ... \(10\) and a, b"
    with pytest.raises(ValueError, match=message):
        train_digits(tmp_path, one_device, digits, eval_set=eval_set)


def test_a_class_without_training_images_is_an_error(
    tmp_path, one_device, digits
):
    without = dataclasses.replace(
        digits[0], labels=tf.maximum(digits[0].labels, 1)
    )
    with pytest.raises(ValueError, match="no training images of 0: 1 of 10"):
        train_digits(tmp_path, one_device, digits, train_set=without)


@pytest.mark.parametrize("other", ["Café", "cafe\u0301", "café "])
def test_a_class_that_is_spelled_in_two_ways(digits, other):
    names = ("café", other, *digits[0].class_names[2:])
    labels = tf.where(digits[0].labels == 1, 0, digits[0].labels)
    train_set, eval_set = (
        dataclasses.replace(x, class_names=names, labels=labels) for x in digits
    )
    message = re.escape(f"{other!a} and {'café'!a} differ only in case")
    with pytest.raises(ValueError, match=message):
        check_classes(train_set, eval_set)


def test_a_label_without_a_name_is_an_error(tmp_path, one_device, digits):
    beyond = dataclasses.replace(digits[0], labels=digits[0].labels + 1)
    with pytest.raises(ValueError, match="the label 10, but there are 10 clas"):
        train_digits(tmp_path, one_device, digits, train_set=beyond)


def test_another_number_of_classes_is_an_error(tmp_path, one_device, digits):
    with pytest.raises(
        ValueError, match="has 7 classes, but the data has 10: 0,"
    ):
        train_digits(
            tmp_path,
            one_device,
            digits,
            build_model=lambda activation: build_model(activation, 7),
        )


def several_labels(digits):
    """The same images with three labels, of which they may have all or none."""
    x = digits.labels
    labels = tf.stack([x % 2, tf.cast(x > 4, x.dtype), x // 9], axis=-1)
    return dataclasses.replace(
        digits, labels=labels, class_names=("odd", "large", "nine")
    )


@pytest.mark.slow
def test_images_of_several_labels(tmp_path, one_device, digits):
    train_set, eval_set = map(several_labels, digits)
    model, summary = train_digits(
        *(tmp_path, one_device, (train_set, eval_set)),
        config=settings(epochs=1, steps_per_epoch=2, loss="focal"),
        build_model=lambda activation: build_model(activation, 3),
    )
    assert 0 < summary["best"]["mean_average_precision"] < 1
    assert "balanced_accuracy" not in (tmp_path / "log.csv").read_text()
    assert "do not exclude each other" in (tmp_path / "model.md").read_text()
    assert model.layers[-1].activation is keras.activations.sigmoid


def test_several_labels_need_their_loss(tmp_path, one_device, digits):
    data_sets = [several_labels(x) for x in digits]
    with pytest.raises(ValueError, match='Pass loss="sigmoid" or loss="focal"'):
        train_digits(tmp_path, one_device, data_sets)
    single = dataclasses.replace(data_sets[1], labels=digits[1].labels)
    with pytest.raises(ValueError, match="must both be multi-label"):
        train_digits(tmp_path, one_device, [data_sets[0], single])


@pytest.mark.slow
def test_classes_count_alike(digits):
    train_set = dataclasses.replace(digits[0], labels=digits[0].labels // 8)
    train_set = dataclasses.replace(train_set, class_names=("most", "few"))
    count = len(train_set)
    config = settings(batch_size=count, class_weight="balanced")
    batches = training_inputs(
        config, train_set, data.get_augmentation("none"), SIZE
    )
    _, labels = next(iter(batches(0, 0, tf.distribute.InputContext())))
    np.testing.assert_allclose(
        labels.numpy().sum(0), [count / 2] * 2, rtol=1e-5
    )


def test_epochs_are_compared_by_what_the_settings_ask_for():
    assert main_metric({"top1": 0.5}) == "top1"
    row = {"top1": 0.5, "balanced_accuracy": 0.4}
    assert main_metric(row) == "balanced_accuracy"


def test_class_names_survive_in_the_file(tmp_path):
    path = tmp_path / "model.keras"
    names = ("größe", "two words", "3")
    model = build_model("softmax", 3)
    save_model(model, path, names, 0.5, "stored")
    assert read_class_names(path) == names
    assert read_crop_fraction(path) == 0.5
    assert read_orientation(path) == "stored"
    loaded = keras.saving.load_model(path)
    for left, right in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(left.numpy(), right.numpy())
    model.save(tmp_path / "plain.keras")
    assert read_class_names(tmp_path / "plain.keras") is None
    assert read_crop_fraction(tmp_path / "plain.keras") is None
    assert read_orientation(tmp_path / "plain.keras") is None
    with pytest.raises(ValueError, match="`orientation` must be one of"):
        save_model(model, tmp_path / "new.keras", names, 0.5, "upright")
    assert zipfile.is_zipfile(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "model.keras",
        "plain.keras",
    ]


def test_functions_are_evaluated_by_their_own_classes(digits, batches):
    """A function with other indices for the digits and two more classes."""
    indices = np.array([3, 1, 4, 0, 5, 9, 2, 6, 11, 8])
    answers = iter(np.array(digits[1].labels))

    def predict(images):
        labels = [next(answers, 0) for _ in images]
        return np.eye(12)[indices[labels]] * 0.9

    scores = evaluate_function(predict, batches, 12, indices)
    assert (scores.images, scores.top1) == (len(digits[1]), 1.0)
    assert np.isnan(scores.per_class[7])
    assert scores.per_class[11] == 1


@pytest.mark.parametrize("shift", [0.0, -5.0])
def test_logits_and_probabilities_score_alike(batches, shift):
    rng = np.random.default_rng(0)
    logits = np.float32(rng.normal(size=(50, 10)) * 5)

    def scores(outputs):
        return evaluate_function(lambda images: outputs, batches, 10)

    left = scores(logits + shift)
    right = scores(tf.nn.softmax(logits).numpy())
    assert left.loss == pytest.approx(right.loss, rel=1e-5)
    assert (left.top1, left.top5) == (right.top1, right.top5)


def test_a_run_that_does_not_say_its_orientation(tmp_path, caplog):
    """It was started by a version that read pixels as stored."""
    assert orientation_of_run(tmp_path, "exif") == "exif"
    path = tmp_path / "config.json"
    path.write_text('{"orientation": "exif"}')
    assert orientation_of_run(tmp_path, "stored") == "stored"
    assert not caplog.messages
    path.write_text('{"crop_fraction": 1.0}')
    assert orientation_of_run(tmp_path, "exif") == "stored"
    assert 'Resuming with orientation="stored"' in caplog.messages[0]


def test_logits_that_look_like_probabilities(batches):
    """All logits are in [0, 1], so the loss is near log(10)."""
    rng = np.random.default_rng(0)
    logits = np.float32(rng.uniform(0, 1, (50, 10)))
    for options in ({}, {"activation": "linear"}):
        scores = evaluate_function(
            lambda images: logits, batches, 10, **options
        )
        assert scores.loss == pytest.approx(np.log(10), abs=0.1)


@pytest.mark.slow
def test_a_single_output_tells_two_classes_apart(digits):
    digits = dataclasses.replace(
        digits[1], labels=digits[1].labels % 2, class_names=("even", "odd")
    )
    answers = iter(np.array(digits.labels))

    def logits(images):
        return np.array([[next(answers, 0) * 6.0 - 3.0] for _ in images])

    batches = data.evaluation_batches(digits, SIZE, 50)
    scores = evaluate_function(logits, batches, 2, activation="linear")
    assert scores.top1 == 1
    assert scores.loss == pytest.approx(np.log(1 + np.exp(-3)), rel=1e-5)
    with pytest.raises(ValueError, match="Cannot determine whether"):
        evaluate_function(logits, batches, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("activation", ["unknown", "softmax", "linear"])
def test_outputs_that_are_no_numbers(batches, value, activation):
    outputs = np.full((50, 10), 0.1)
    outputs[3, 4] = value
    with pytest.raises(ValueError, match="NaN or infinite for 1 of 50 images"):
        evaluate_function(
            lambda images: outputs, batches, 10, activation=activation
        )
