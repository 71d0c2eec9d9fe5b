"""Tests reusable SavedModels as layers."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.export import HubLayer
from convmixer_tf.export import export_tfhub
from convmixer_tf.models import ConvMixer

INPUTS = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")


def without_training(weight, x):
    return weight * x


def by_keyword(weight, x, training=False):
    return weight * x + (1.0 if training else 0.0)


def by_position(weight, x, training):
    return by_keyword(weight, x, training)


def keyword_only(weight, x, *, training):
    return by_keyword(weight, x, training)


def as_a_tensor(weight, x, training):
    return weight * x + tf.where(training, 1.0, 0.0)


def two_outputs(weight, x):
    best = tf.argmax(x, -1, output_type=tf.int32)
    return {"product": weight * x, "best": best}


CALLS = (
    without_training,
    by_keyword,
    by_position,
    keyword_only,
    as_a_tensor,
)


def write(folder, call, batch=None, lists=True):
    """Writes a SavedModel that multiplies by its weight, 2."""
    module = tf.train.Checkpoint()
    module.weight = tf.Variable(2.0)
    if lists:
        module.variables = module.trainable_variables = [module.weight]
    function = tf.function(
        functools.partial(call, module.weight), autograph=False
    )
    spec = tf.TensorSpec((batch, 4), tf.float32)
    if call is as_a_tensor:
        function.get_concrete_function(spec, tf.TensorSpec((), tf.bool))
    elif call in (without_training, two_outputs):
        function.get_concrete_function(spec)
    else:
        for training in (False, True):
            function.get_concrete_function(spec, training=training)
    module.__call__ = function
    tf.saved_model.save(module, folder)
    return folder


@pytest.mark.parametrize("call", CALLS, ids=lambda x: x.__name__)
def test_whatever_the_module_takes(tmp_path, call):
    layer = HubLayer(write(tmp_path, call))
    assert layer.compute_output_shape((None, 4)) == (None, 4)
    added = 0 if call is without_training else 1
    for training, expected in (
        (None, 2 * INPUTS),
        (False, 2 * INPUTS),
        (True, 2 * INPUTS + added),
    ):
        assert np.array_equal(layer(INPUTS, training=training), expected)
    frozen = HubLayer(tmp_path, trainable=False)
    assert np.array_equal(frozen(INPUTS, training=True), 2 * INPUTS)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("call", [without_training, by_position])
def test_it_is_trained_saved_and_loaded(tmp_path, call, policy):
    keras.config.set_dtype_policy(policy)
    image = keras.Input((4,))
    layer = HubLayer(write(tmp_path / "module", call))
    model = keras.Model(image, layer(image))
    assert model.output_shape == (None, 4)
    assert layer.output.dtype == "float32"
    model.compile("sgd", "mse")
    model.fit(INPUTS, 3 * INPUTS, epochs=1, verbose=0)
    (weight,) = model.trainable_weights
    assert float(weight.value) != 2
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    expected = model.predict(INPUTS, verbose=0)
    assert np.array_equal(again.predict(INPUTS, verbose=0), expected)
    np.testing.assert_allclose(expected, INPUTS * float(weight.value), 1e-6)


def test_several_outputs(tmp_path):
    layer = HubLayer(write(tmp_path, two_outputs))
    shapes = {"product": (7, 4), "best": (7,)}
    assert layer.compute_output_shape((7, 4)) == shapes
    image = keras.Input((4,))
    outputs = layer(image)
    assert outputs["product"].shape == (None, 4)
    assert outputs["best"].dtype == "int32"
    found = keras.Model(image, outputs).predict(INPUTS, verbose=0)
    assert np.array_equal(found["product"], 2 * INPUTS)
    assert np.array_equal(found["best"], INPUTS.argmax(1))


def module(folder, compute, takes):
    """Writes a SavedModel without weights."""
    written = tf.Module()
    written.__call__ = tf.function(compute, input_signature=[takes])
    tf.saved_model.save(written, folder)
    return folder


def test_whatever_type_the_module_takes(tmp_path):
    spec = tf.TensorSpec((None, 4), tf.uint8)
    folder = module(tmp_path, lambda x: tf.cast(x, tf.float32) / 2, spec)
    layer = HubLayer(folder)
    images = np.arange(8, dtype="uint8").reshape(2, 4)
    for dtype in ("uint8", "int64", "float32"):
        assert np.array_equal(layer(images.astype(dtype)), images / 2)
    assert layer.compute_output_shape((None, 4)) == (None, 4)
    image = keras.Input((4,), dtype="uint8")
    model = keras.Model(image, layer(image))
    assert np.array_equal(model.predict(images, verbose=0), images / 2)


def test_a_module_of_words(tmp_path):
    spec = tf.TensorSpec((None,), tf.string)
    layer = HubLayer(module(tmp_path, tf.strings.length, spec))
    assert np.array_equal(layer(tf.constant(["a", "bcd"])), [1, 3])
    assert layer(keras.Input((), dtype="string")).shape == (None,)


@pytest.mark.parametrize("kind", ["list", "dictionary"])
def test_several_inputs(tmp_path, kind):
    spec = tf.TensorSpec((None, 4), tf.float32)
    names = [0, 1] if kind == "list" else ["a", "b"]

    def pack(values):
        return (
            values if kind == "list" else dict(zip(names, values, strict=True))
        )

    def subtract(x):
        return x[names[0]] - x[names[1]]

    layer = HubLayer(module(tmp_path, subtract, pack([spec, spec])))
    assert not np.any(layer(pack([INPUTS, INPUTS])))
    shapes = pack([(None, 4), (None, 4)])
    assert layer.compute_output_shape(shapes) == (None, 4)
    images = pack([keras.Input((4,), name="a"), keras.Input((4,), name="b")])
    model = keras.Model(images, layer(images))
    found = model.predict(pack([3 * INPUTS, INPUTS]), verbose=0)
    np.testing.assert_allclose(found, 2 * INPUTS, 1e-6)


def test_a_fixed_batch_and_no_lists_of_variables(tmp_path):
    layer = HubLayer(write(tmp_path, by_keyword, batch=3, lists=False))
    assert layer.weights == []
    assert np.array_equal(layer(INPUTS), 2 * INPUTS)
    assert layer.compute_output_shape((3, 4)) == (3, 4)


@pytest.mark.parametrize("call", [without_training, by_position])
def test_time_distributed(tmp_path, call):
    sequences = np.stack([INPUTS, -INPUTS], 1)
    layer = HubLayer(write(tmp_path, call))
    outer = keras.layers.TimeDistributed(layer)
    assert outer.compute_output_shape((None, 2, 4)) == (None, 2, 4)
    image = keras.Input((2, 4))
    model = keras.Model(image, outer(image))
    assert np.array_equal(model.predict(sequences, verbose=0), 2 * sequences)
    assert len(model.trainable_weights) == 1


@pytest.mark.slow
def test_a_convmixer_over_time(tmp_path):
    export_tfhub(
        ConvMixer(8, 1, 3, 4, input_shape=(8, 8, 3), classes=5), tmp_path / "m"
    )
    layer = HubLayer(tmp_path / "m" / "saved_model")
    assert layer.compute_output_shape((None, 8, 8, 3)) == (None, 5)
    videos = np.random.default_rng(0).uniform(0, 255, (2, 3, 8, 8, 3))
    image = keras.Input((3, 8, 8, 3))
    model = keras.Model(image, keras.layers.TimeDistributed(layer)(image))
    expected = np.stack([layer(video) for video in videos])
    found = model.predict(videos, verbose=0)
    np.testing.assert_allclose(found, expected, 1e-5, 1e-6)
