"""Tests common properties of all public layers and models."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import ops

import convmixer_tf
from convmixer_tf import layers
from convmixer_tf.weights import PUBLISHED_WEIGHTS
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import relative_difference
from tests.helpers import run_python

tf = pytest.importorskip("tensorflow")


class Case(NamedTuple):
    build: Callable  # Keyword arguments -> a model of that layer or model.
    images: np.ndarray
    has_remat: bool = True


def _layer(cls, input_shape, **config):
    def build(**kwargs):
        layer = cls(**config, **kwargs)
        return keras.Sequential([keras.Input(input_shape), layer])

    return build


def _model(cls, *sizes, **config):
    return lambda **kwargs: cls(*sizes, **config, **kwargs)


def _narrow(name):
    """A variant with a smaller width."""
    facts = PUBLISHED_WEIGHTS[f"convmixer_{name.removeprefix('ConvMixer')}"]
    sizes = (facts.depth, facts.kernel_size, facts.patch_size)
    return _model(
        convmixer_tf.ConvMixer, 16, *sizes, facts.activation, classes=5, **SMALL
    )


IMAGES = asymmetric_image(30, 45).astype("float32")
SMALL = {
    "weights": None,
    "input_shape": (30, 45, 3),
    "classifier_activation": None,
}
CASES = {
    "PatchEmbed": Case(
        _layer(convmixer_tf.PatchEmbed, (30, 45, 3), dim=8, patch_size=4),
        IMAGES / 128 - 1,
        has_remat=False,
    ),
    "ConvMixerBlock": Case(
        _layer(convmixer_tf.ConvMixerBlock, (30, 45, 3), kernel_size=5),
        IMAGES / 128 - 1,
    ),
    "ConvMixer": Case(
        _model(convmixer_tf.ConvMixer, 8, 2, 5, 4, classes=5, **SMALL), IMAGES
    ),
    "ConvMixer256_8": Case(
        _model(convmixer_tf.ConvMixer256_8, **SMALL), IMAGES
    ),
    "ConvMixer512_16": Case(
        _model(convmixer_tf.ConvMixer512_16, **SMALL), IMAGES
    ),
    "ConvMixer768_32": Case(
        _model(convmixer_tf.ConvMixer768_32, **SMALL), IMAGES
    ),
    "ConvMixer1024_20": Case(
        _model(convmixer_tf.ConvMixer1024_20, **SMALL), IMAGES
    ),
    "ConvMixer1536_20": Case(
        _model(convmixer_tf.ConvMixer1536_20, **SMALL), IMAGES
    ),
}
# Public names that are not layers or models.
OTHER_NAMES = {
    "CovarianceInitializer",
    "decode_predictions",
    "open_model",
    "predict_images",
    "preprocess_input",
}
VARIANTS = {name: case for name, case in CASES.items() if "_" in name}
OTHERS = {name: case for name, case in CASES.items() if "_" not in name}
# Full width only adds minutes if the full depth is trained or compiled.
NARROW = OTHERS | {
    name: case._replace(build=_narrow(name)) for name, case in VARIANTS.items()
}


def each(cases):
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param(
                case, id=name, marks=[pytest.mark.large] * (name in VARIANTS)
            )
            for name, case in cases.items()
        ],
    )


EVERY, EVERY_NARROW = each(CASES), each(NARROW)


@pytest.fixture
def _float64():
    # With batch statistics of few values, a deep network amplifies rounding.
    keras.config.set_dtype_policy("float64")


def with_and_without_remat(case):
    return [{}, {"remat": True}] if case.has_remat else [{}]


def train_step(model, images):
    """One step of gradient descent; returns the gradients."""
    with tf.GradientTape() as tape:
        # Not the squares, because batch norm fixes their mean.
        loss = ops.mean(ops.power(model(images, training=True), 3))
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply(gradients, model.trainable_variables)
    return gradients


def test_no_public_name_is_missing():
    public = {*convmixer_tf.__all__, *layers.__all__}
    assert set(CASES) | OTHER_NAMES == public


@pytest.mark.slow
@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(OTHERS, id="small"),
        pytest.param(VARIANTS, id="variants", marks=pytest.mark.large),
    ],
)
def test_keras_files_round_trip_in_a_fresh_process(cases, tmp_path):
    expected = {}
    for name, case in cases.items():
        model = randomize(case.build())
        model.save(tmp_path / f"{name}.keras")
        np.save(tmp_path / f"{name}.npy", case.images)
        expected[name] = model(case.images)
    run_python(
        "import os, sys, numpy, keras, convmixer_tf\n"
        "os.chdir(sys.argv.pop(1))\n"
        "for name in sys.argv[1:]:\n"
        "    model = keras.saving.load_model(name + '.keras')\n"
        "    images = numpy.load(name + '.npy')\n"
        "    numpy.save(name + '.npy', model(images))\n",
        *(tmp_path, *cases),
    )
    for name in cases:
        outputs = np.load(tmp_path / f"{name}.npy")
        assert relative_difference(outputs, expected[name]) < 1e-6


@EVERY
def test_weights_round_trip(case, tmp_path):
    model = randomize(case.build())
    model.save_weights(tmp_path / "model.weights.h5")
    restored = case.build()
    restored.load_weights(tmp_path / "model.weights.h5")
    for actual, expected in zip(
        restored.get_weights(), model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(actual, expected)


@EVERY
def test_frozen_stays_frozen(case, tmp_path):
    model = case.build()
    for layer in model.layers:
        layer.trainable = False
    model.save(tmp_path / "model.keras")
    for copy in (
        keras.saving.load_model(tmp_path / "model.keras"),
        keras.models.clone_model(model),
    ):
        assert not copy.trainable_variables
        before = copy.get_weights()
        copy(case.images, training=True)
        for old, new in zip(before, copy.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


@EVERY_NARROW
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(case, policy):
    expected = case.build()(case.images)
    keras.config.set_dtype_policy(policy)
    for kwargs in with_and_without_remat(case):
        keras.utils.set_random_seed(0)
        model = case.build(**kwargs)
        actual = ops.cast(model(case.images), "float32")
        assert relative_difference(actual, expected) < 0.05
        model.compile(keras.optimizers.SGD(1e-3))
        for gradient in train_step(model, case.images):
            assert gradient.dtype == tf.float32
            assert np.isfinite(gradient).all()


@pytest.mark.slow
@EVERY_NARROW
def test_jit(case):
    for kwargs in with_and_without_remat(case):
        model = randomize(case.build(**kwargs))
        compiled = tf.function(model, jit_compile=True)
        # In training, the batch statistics of many layers are from few values,
        # so rounding errors grow. (In float64, XLA on a CPU takes gigabytes.)
        for training, tolerance in ((False, 1e-4), (True, 0.1)):
            expected = model(case.images, training=training)
            actual = compiled(case.images, training=training)
            assert relative_difference(actual, expected) < tolerance


@pytest.mark.slow
@each(
    {
        # The variants take longest to trace, so they are tested without remat.
        name: case._replace(has_remat=case.has_remat and name in OTHERS)
        for name, case in NARROW.items()
    }
)
@pytest.mark.usefixtures("_float64")
def test_two_replicas(case, two_replicas):
    for kwargs in with_and_without_remat(case):
        one = case.build(**kwargs)
        one.compile(keras.optimizers.SGD(0.1))
        with two_replicas.scope():
            two = case.build(**kwargs)
            two.compile(keras.optimizers.SGD(0.1))
        two.set_weights(one.get_weights())

        # Both replicas see the same batch, so the averaged statistics equal one
        # replica's, and the summed gradients are twice one replica's.
        one.optimizer.learning_rate = 0.2
        train_step(one, case.images)
        tf.function(two_replicas.run)(train_step, args=(two, case.images))
        for actual, expected in zip(
            two.get_weights(), one.get_weights(), strict=True
        ):
            scale = np.abs(expected).max()
            np.testing.assert_allclose(actual, expected, atol=1e-9 * scale)


@each({name: case for name, case in NARROW.items() if case.has_remat})
@pytest.mark.usefixtures("_float64")
def test_remat_computes_the_same(case):
    plain, remat = randomize(case.build()), randomize(case.build(remat=True))
    for model in (plain, remat):
        model.compile(keras.optimizers.SGD(1e-3))
    for actual, expected in zip(
        train_step(remat, case.images),
        train_step(plain, case.images),
        strict=True,
    ):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(actual, expected, atol=1e-9 * scale)
