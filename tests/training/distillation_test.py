import keras
import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf import ConvMixer
from convmixer_tf.models.open_model import OpenedModel
from convmixer_tf.training.distillation import build_teacher
from convmixer_tf.training.distillation import distillation_loss
from convmixer_tf.training.inputs import distribute
from convmixer_tf.training.step import Engine
from tests.training import tiny

NAMES = tuple(f"class {i}" for i in range(tiny.CLASSES))
SIZE = 16


def teacher_model(classes=tiny.CLASSES, size=SIZE, activation="softmax"):
    shape = {"input_shape": (size, size, 3), "classes": classes}
    return ConvMixer(6, 1, 3, 4, classifier_activation=activation, **shape)


def images(count=4):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (count, SIZE, SIZE, 3)).astype(np.float32)


def test_the_loss_is_hintons():
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 5, 3)).astype(np.float32)
    labels = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]]

    def log_softmax(x):
        return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))

    soft = np.exp(log_softmax(teacher / 4))
    expected = -0.7 * np.sum(labels * log_softmax(student), -1)
    expected -= 0.3 * 16 * np.sum(soft * log_softmax(student / 4), -1)
    found = distillation_loss(tf.constant(labels), student, teacher, 0.3, 4.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("activation", ["softmax", None])
def test_a_teacher_gives_logits_of_the_students_classes(activation):
    model = teacher_model(12, activation=activation)
    order = np.random.default_rng(1).permutation(12)
    names = [(*NAMES, "more", "still more")[i] for i in order]
    teacher = build_teacher(OpenedModel(model, tuple(names)), NAMES, SIZE)
    indices = [names.index(name) for name in NAMES]
    outputs = model(images()).numpy()[:, indices]
    expected = np.exp(outputs) if activation is None else outputs
    expected /= expected.sum(-1, keepdims=True)
    np.testing.assert_allclose(
        tf.nn.softmax(teacher(images())), expected, rtol=1e-4
    )
    assert not teacher.trainable_variables


def test_a_teacher_of_larger_images():
    model = teacher_model(size=2 * SIZE, activation=None)
    teacher = build_teacher(OpenedModel(model, NAMES), NAMES, SIZE)
    larger = tf.image.resize(images(), (2 * SIZE, 2 * SIZE))
    np.testing.assert_allclose(
        teacher(images()), model(larger), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("model", "names", "message"),
    [
        (lambda: teacher_model(4), None, "4 classes and the data has 10"),
        (
            lambda: teacher_model(activation="sigmoid"),
            NAMES,
            "must return logits or softmax prob.*'sigmoid'",
        ),
        (
            lambda: keras.Sequential(
                [keras.Input((4,)), keras.layers.Dense(10)]
            ),
            NAMES,
            r"must take images of 3 channels.* \(None, 4\)",
        ),
        (lambda: teacher_model(), (*NAMES[1:], "x"), "not know the classes"),
    ],
)
def test_models_that_can_not_teach(model, names, message):
    with pytest.raises(ValueError, match=message):
        build_teacher(OpenedModel(model(), names), NAMES, SIZE)


def make_engine(strategy, **changes):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = tiny.build_model(frozen_norms=True)
        opened = OpenedModel(teacher_model(), NAMES)
        teacher = build_teacher(opened, NAMES, SIZE)
        return Engine(tiny.config(**changes), model, strategy, teacher)


def train(engine, steps=4):
    count = engine.config.accumulation_steps
    batches = tiny.train_batches(engine.config.batch_size // count)
    data = iter(
        distribute(engine.strategy, lambda context: batches(0, 0, context))
    )
    return [float(engine.update(data)["loss"][0]) for _ in range(steps)]


@pytest.mark.slow
def test_two_replicas_learn_what_one_learns(one_device, two_replicas):
    one = make_engine(one_device)
    before = tiny.weights_of(one.teacher)
    losses = train(one)
    assert tiny.worst_difference(before, tiny.weights_of(one.teacher)) == 0
    two = make_engine(two_replicas)
    assert train(two) == pytest.approx(losses, rel=1e-5)
    parts = make_engine(one_device, accumulation_steps=2)
    assert train(parts) == pytest.approx(losses, rel=1e-5)


def test_a_model_learns_from_its_teacher_alone(one_device):
    settings = {"schedule": "constant", "clip_norm": None, "epochs": 100}
    settings |= {"distillation_weight": 1.0, "distillation_temperature": 1.0}
    engine = make_engine(one_device, **settings)
    pixels = tf.constant(images(16))
    target = tf.nn.softmax(engine.teacher(pixels))
    labels = tf.zeros(16, tf.int32)
    data = tf.data.Dataset.from_tensors((pixels, labels)).repeat()
    engine.update(iter(data), 60)
    found = tf.nn.softmax(engine.model(pixels, training=False))
    start = tf.nn.softmax(tiny.build_model()(pixels, training=False))
    assert np.mean(np.abs(found - target)) < np.mean(np.abs(start - target)) / 3


def test_a_checkpoint_holds_no_teacher(one_device, tmp_path):
    engine = make_engine(one_device)
    alone = Engine(engine.config, engine.model, one_device)
    with_teacher, without = (
        tf.train.list_variables(x.state().write(str(tmp_path / name)))
        for name, x in (("with", engine), ("without", alone))
    )
    assert with_teacher == without
