"""Tests fine-tuning: selection, report and errors."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from convmixer_tf import ConvMixer
from convmixer_tf.data import open_splits
from convmixer_tf.data import read_images
from convmixer_tf.models import load_model
from convmixer_tf.models.additions import read_class_names
from convmixer_tf.models.additions import read_crop_fraction
from convmixer_tf.models.open_model import OpenedModel
from convmixer_tf.training import finetune
from convmixer_tf.training.finetune import read_validation
from tests.helpers import randomize
from tests.helpers import write_images

# Its name is also that of a function.
MODULE = "convmixer_tf.training.finetune"
CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def source():
    """An opened model of two other classes."""
    model = ConvMixer(8, 1, 3, 4, input_shape=(16, 16, 3), classes=2)
    return OpenedModel(randomize(model), ("x", "y"), 1.0, "exif")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, CLASSES, 10, 16)
    return folder


@pytest.fixture(scope="module")
def result(source, folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "new" / "run"
    return finetune(folder, source, output)


def test_a_few_images_get_a_new_head_only(result, source):
    report = result.report
    assert report["kept"] == "head"
    assert report["head_only_because"] == (
        "there are fewer than 100 training images"
    )
    assert report["images"] == {"train": 24, "validation": 6}
    assert report["validation"]["top1"] == 1
    assert report["validation"]["chance"] == pytest.approx(1 / 3)
    low, high = report["validation"]["interval"]
    assert (low, high) == (pytest.approx(0.6097, abs=1e-4), 1)
    for name in ("block_0", "patch_embed"):
        new, old = (
            model.get_layer(name).get_weights()
            for model in (result.model, source.model)
        )
        for one, other in zip(new, old, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_folder_holds_model_card_report_and_list(result):
    model = load_model(result.path)
    pixels = np.full((1, 16, 16, 3), (60, 60, 180), np.uint8)
    probabilities = model.predict(pixels, verbose=0)[0]
    assert probabilities.argmax() == 0
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert read_class_names(result.path) == CLASSES
    assert read_crop_fraction(result.path) == 1
    run = result.path.removesuffix("model.keras")
    with open(f"{run}finetune.json") as file:
        report = json.load(file)
    assert report["validation"]["top1"] == 1
    with open(f"{run}images.csv") as file:
        assert len(list(csv.DictReader(file))) == 30
    with open(f"{run}model.md") as file:
        card = file.read()
    assert "100.00% (61.0% to 100.0%)" in card
    assert "6 validation images" in card


def test_the_head_is_fitted_to_the_validation_images_at_last(result):
    """The figures and the probabilities are from before the final fit."""
    assert result.report["refitted"]
    found = read_validation(result.path.removesuffix("/model.keras"))
    validation = result.splits.validation
    images, labels = read_images(validation, 16, crop_fraction=1.0)
    np.testing.assert_array_equal(found.argmax(-1), labels)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    after = result.model.predict(np.float32(images), verbose=0)
    own = np.arange(len(labels)), labels
    assert -np.log(after[own]).mean() < -np.log(found[own]).mean()


def test_the_same_call_gives_the_same_result(result, source, folder):
    before = load_model(result.path).get_weights()
    again = finetune(folder, source, result.path.removesuffix("/model.keras"))
    for one, other in zip(before, again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_run_is_not_replaced(result, source, folder, tmp_path):
    run = result.path.removesuffix("/model.keras")
    with pytest.raises(ValueError, match="seed was 0 and is 1"):
        finetune(folder, source, run, seed=1)
    shutil.copy(result.path, tmp_path / "model.keras")
    with pytest.raises(FileExistsError, match="holds another model"):
        finetune(folder, source, tmp_path)


@pytest.mark.large
def test_all_weights_are_trained_from_the_head_and_resumed(
    source, tmp_path, monkeypatch
):
    """A run that was stopped and resumed ends with the same weights."""
    write_images(tmp_path / "images", CLASSES, 50, 16)
    settings = {"epochs": 3, "batch_size": 16, "learning_rate": 1e-2}
    splits = open_splits(tmp_path / "images")
    once = finetune(splits, source, tmp_path / "once", **settings)
    found = once.report["candidates"]
    assert set(found) == {"head", "all"}
    assert found["all"]["updates"] == 23  # 3 x 120 / 16, rounded up.
    log = (tmp_path / "once/training/log.csv").read_text()
    assert log.count("\n") == 2

    monkeypatch.setattr("convmixer_tf.training.trainer.Run.update", _stop_at_9)
    with pytest.raises(KeyboardInterrupt):
        finetune(splits, source, tmp_path / "twice", **settings)
    monkeypatch.undo()
    twice = finetune(splits, source, tmp_path / "twice", **settings)
    del once.report["seconds"], twice.report["seconds"]
    assert once.report == twice.report


def _stop_at_9(run, batches):
    """Updates like `Run.update`, saves after 8 updates and stops at 9."""
    if run.step == 8:
        run.save()
        raise KeyboardInterrupt
    results = run.engine.update(batches)
    run.step += 1
    run.losses.append(results["loss"])


@pytest.mark.slow
def test_all_weights_are_kept_where_they_are_better(tmp_path):
    """Images whose class a random model's features do not separate."""
    rng = np.random.default_rng(0)
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
        for i in range(150):
            pixels = rng.integers(90, 160, (8, 8, 3))
            y, x = 2 * rng.integers(0, 4, 2)
            side = x if name == "left" else x + 1
            pixels[y : y + 2, side] += 90
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(tmp_path / name / f"{i}.png")
    model = ConvMixer(16, 1, 3, 2, input_shape=(8, 8, 3), classes=2)
    model.get_layer("patch_embed").conv.kernel.assign(
        np.full((2, 2, 3, 16), 0.01)
    )
    source = OpenedModel(model, None, 1.0, "exif")
    result = finetune(
        tmp_path, source, tmp_path / "run", epochs=20, learning_rate=2e-2
    )
    found = result.report["candidates"]
    assert found["head"]["validation"]["top1"] < 0.8
    assert found["all"]["validation"]["top1"] > 0.95
    assert result.report["kept"] == "all"
    assert found["head"]["mirrored"] is False


@pytest.mark.slow
def test_several_labels_an_image(source, tmp_path):
    """A channel is bright for each of an image's labels."""
    rng = np.random.default_rng(0)
    lines = ["path,label"]
    for i in range(120):
        labels = rng.random(3) < 0.5
        pixels = rng.integers(0, 100, (16, 16, 3)) + 120 * labels
        path = tmp_path / f"{i}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        names = ";".join(np.array(["r", "g", "b"])[labels])
        lines.append(f"{i}.png,{names}")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines), encoding="utf-8")
    result = finetune(
        table, source, tmp_path / "run", epochs=1, validation_fraction=0.1
    )
    report = result.report
    assert report["multi_label"]
    assert report["validation"]["mean_average_precision"] > 0.9
    assert report["validation"]["chance"] < 0.8
    assert {"head", "all"} == set(report["candidates"])
    assert result.model.layers[-1].activation.__name__ == "sigmoid"
    white = np.full((1, 16, 16, 3), 200, np.uint8)
    assert result.model.predict(white, verbose=0).min() > 0.5


@pytest.mark.slow
def test_rare_classes_count_as_much_as_others(source, tmp_path):
    """Noise, for which always predicting the frequent class is best."""
    rng = np.random.default_rng(0)
    for name, count in (("often", 80), ("rare", 10)):
        (tmp_path / name).mkdir()
        for i in range(count):
            shade = rng.normal(100 if name == "often" else 120, 20)
            pixels = rng.normal(shade, 5, (16, 16, 3)).clip(0, 255)
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(tmp_path / name / f"{i}.png")
    report = finetune(tmp_path, source, tmp_path / "run", frozen=True).report
    assert report["images_per_class"]["train"] == {"often": 64, "rare": 8}
    assert report["validation"]["chance"] == pytest.approx(16 / 18)
    assert report["validation"]["balanced_accuracy"] > 0.5
    assert report["head_only_because"] == "the backbone is frozen"


@pytest.mark.slow
def test_large_data_are_read_from_their_files(
    source, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("convmixer_tf.training.crops.MEMORY_BYTES", 100)
    write_images(tmp_path / "images", CLASSES, 50, 16)
    report = finetune(
        tmp_path / "images", source, tmp_path / "run", epochs=1
    ).report
    assert report["candidates"]["all"]["updates"] == 3  # 120 // 32.
    assert report["validation"]["top1"] == 1


@pytest.mark.slow
def test_a_training_that_fails_leaves_the_head(
    source, tmp_path, monkeypatch, caplog
):
    def fail(*arguments, **more):
        assert (tmp_path / "run" / "model.keras").is_file()
        raise FloatingPointError("The loss is not finite.")

    monkeypatch.setattr(sys.modules[MODULE], "train", fail)
    write_images(tmp_path / "images", CLASSES, 40, 16)
    result = finetune(
        tmp_path / "images", source, tmp_path / "run", validation_fraction=0.1
    )
    assert result.report["kept"] == "head"
    assert result.report["head_only_because"] == "The loss is not finite."
    assert "Training all weights failed" in caplog.text


@pytest.mark.slow
def test_another_size_of_the_images(source, folder, tmp_path):
    result = finetune(folder, source, tmp_path / "run", image_size=8)
    assert result.model.input_shape == (None, 8, 8, 3)
    assert result.report["image_size"] == 8


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"crop_fraction": 2}, ValueError, "`crop_fraction` must be from"),
        ({"orientation": "up"}, ValueError, "orientation"),
        ({"epochs": 0}, ValueError, "`epochs` must be a positive integer"),
        ({"learning_rate": 0.0}, ValueError, "`learning_rate` must be above"),
        ({"validation_fraction": 2}, ValueError, "validation_fraction"),
        ({"image_size": 3}, ValueError, "at least one patch, 4"),
        ({"model": "resnet"}, FileNotFoundError, "Received: 'resnet'"),
        ({"data": "/no/where"}, FileNotFoundError, "There is no folder"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    source, folder, tmp_path, settings, error, message
):
    arguments = {
        "data": folder,
        "model": source,
        "output": tmp_path / "run",
        **settings,
    }
    with pytest.raises(error, match=message):
        finetune(**arguments)
    assert not (tmp_path / "run").exists()


def test_one_class_and_other_models_are_refused(source, tmp_path):
    write_images(tmp_path / "images", ("only",), 4, 16)
    with pytest.raises(ValueError, match="at least two classes"):
        finetune(tmp_path / "images", source, tmp_path / "run")
    write_images(tmp_path / "two", ("a", "b"), 4, 16)
    gray = ConvMixer(8, 1, 3, 4, input_shape=(16, 16, 1), classes=2)
    with pytest.raises(ValueError, match="square images with 3 channels"):
        finetune(tmp_path / "two", OpenedModel(gray), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_class_without_training_images_is_named(source, tmp_path):
    write_images(tmp_path / "train", ("a", "b"), 4, 16)
    write_images(tmp_path / "val", ("a", "b", "c"), 2, 16)
    with pytest.raises(ValueError, match="no training images of c: 1 of 3"):
        finetune(tmp_path, source, tmp_path / "run")


@pytest.mark.slow
def test_a_class_without_validation_images_is_no_error(source, tmp_path):
    write_images(tmp_path / "train", CLASSES, 4, 16)
    write_images(tmp_path / "val", CLASSES[:2], 2, 16)
    report = finetune(tmp_path, source, tmp_path / "run").report
    assert report["images_per_class"]["validation"]["red"] == 0
    assert report["validation"]["balanced_accuracy"] == 1
