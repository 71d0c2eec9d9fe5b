"""The fast GELU must be the exact one, and be used where it applies."""

import keras
import numpy as np
import pytest
from scipy import special

from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.layers.acceleration import activate
from convmixer_tf.layers.acceleration import plain_operations
from convmixer_tf.layers.acceleration import tensorflow_cpu
from tests.helpers import randomize
from tests.helpers import relative_difference

tf = pytest.importorskip("tensorflow")

EXTREMES = [-1e30, -40, -1e-30, 0, 1e-30, 40, 1e30]
POINTS = np.concatenate([np.linspace(-9, 9, 4001), EXTREMES])


def _exact(x):
    return x * special.ndtr(x)


def _exact_slope(x):
    return special.ndtr(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


def _value_and_slope(x, training):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = activate(keras.activations.gelu, x, training)
    return y, tape.gradient(y, x)


CONTEXTS = pytest.mark.parametrize(
    "context",
    [
        _value_and_slope,
        tf.function(_value_and_slope),
        tf.function(_value_and_slope, jit_compile=True),
    ],
    ids=["eager", "graph", "jit"],
)


@CONTEXTS
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)]
)
def test_value_and_slope_are_exact(dtype, tolerance, training, context):
    x = np.asarray(POINTS, dtype)
    y, slope = context(tf.constant(x), training)
    assert y.dtype == slope.dtype == dtype
    x = np.float64(x)
    for actual, expected in ((y, _exact(x)), (slope, _exact_slope(x))):
        error = np.abs(actual - expected) / np.maximum(1, np.abs(x))
        assert error.max() < tolerance


def test_far_negative_values_vanish():
    x = tf.constant([-10, -1e3, -1e30, -np.inf])
    np.testing.assert_array_equal(_value_and_slope(x, True)[0], np.zeros(4))
    np.testing.assert_allclose(_value_and_slope(x, False)[0][:3], np.zeros(3))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_rounded_once(dtype):
    x = tf.cast(np.linspace(-6, 6, 4001), dtype)
    y, slope = _value_and_slope(x, training=True)
    assert y.dtype == slope.dtype == dtype
    wide = tf.cast(x, "float64").numpy()
    half_a_digit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    for actual, exact in ((y, _exact(wide)), (slope, _exact_slope(wide))):
        np.testing.assert_allclose(
            tf.cast(actual, "float64"), exact, rtol=half_a_digit, atol=1e-6
        )


def test_bfloat16_keeps_what_is_not_finite():
    x = tf.constant([np.nan, -np.nan, np.inf, 2.0**127, -(2.0**127)])
    y, slope = _value_and_slope(tf.cast(x, "bfloat16"), training=True)
    for actual, expected in (
        (y, [np.nan, np.nan, np.inf, 2.0**127, 0]),
        (slope, [np.nan, np.nan, np.nan, 1, 0]),
    ):
        np.testing.assert_allclose(
            tf.cast(actual, "float32"), expected, atol=1e-6
        )


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float64", 1e-12), ("float32", 1e-6), ("bfloat16", 1e-2)],
)
def test_second_derivative(dtype, tolerance):
    x = tf.cast(np.linspace(-5, 5, 101), dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        slope = _value_and_slope(x, training=True)[1]
    curvature = tf.cast(tape.gradient(slope, x), "float64")
    x = tf.cast(x, "float64").numpy()
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(curvature, density * (2 - x**2), atol=tolerance)


@pytest.mark.parametrize("name", ["relu", "silu", "tanh"])
def test_other_activations_are_left_alone(name):
    activation = keras.activations.get(name)
    x = tf.constant([-1.0, 0.5, 2.0])
    np.testing.assert_array_equal(
        activate(activation, x, training=True), activation(x)
    )


def test_approximate_gelu_stays_approximate():
    def approximate(x):
        return keras.activations.gelu(x, approximate=True)

    x = tf.constant([-1.0, 0.5, 2.0])
    actual = activate(approximate, x, training=True)
    np.testing.assert_array_equal(actual, approximate(x))
    assert np.abs(actual - _exact(x.numpy())).max() > 1e-5


def _step(block, x, dy):
    weights = [weight.value for weight in block.trainable_weights]
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = block(x, training=True)
    gradients = tape.gradient(y, [x, *weights], dy)
    return y, gradients, [w.value for w in block.non_trainable_weights]


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_block_trains_as_with_keras_own_layers(data_format, remat, monkeypatch):
    x, dy = np.random.default_rng(0).normal(size=(2, 2, 6, 8, 8))
    x, dy = tf.constant(x, "float32"), tf.constant(dy, "float32")

    def result(graph):
        block = ConvMixerBlock(5, remat=remat, data_format=data_format)
        block.build(x.shape)
        step = tf.function(_step) if graph else _step
        return tf.nest.flatten(step(randomize(block), x, dy))

    fast, fast_eager = result(graph=True), result(graph=False)
    for module in (
        "acceleration",
        "batch_normalization",
        "convolution",
        "depthwise_plan",
    ):
        monkeypatch.setattr(
            f"convmixer_tf.layers.{module}.tensorflow_cpu", lambda: None
        )
    stock = result(graph=True)
    for ours, eager, theirs in zip(fast, fast_eager, stock, strict=True):
        assert relative_difference(ours, theirs) < 2e-5
        assert relative_difference(eager, theirs) < 2e-5


def test_block_is_stock_where_there_is_a_gpu(monkeypatch):
    device = tf.config.LogicalDevice("/device:GPU:0", "GPU")
    x = tf.zeros((1, 6, 6, 2))
    block = ConvMixerBlock(5)
    block.build(x.shape)

    def ops():
        step = tf.function(lambda x: _step(block, x, x))
        graph = step.get_concrete_function(x).graph
        return {op.type for op in graph.get_operations()}

    assert "FusedBatchNormV3" in ops()
    assert "DepthwiseConv2dNativeBackpropFilter" not in ops()
    cpus = tf.config.list_logical_devices()
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda: [*cpus, device]
    )
    assert not {"FusedBatchNormV3", "IdentityN", "While"} & ops()
    assert "DepthwiseConv2dNativeBackpropFilter" in ops()


def test_half_precision_inference_follows_keras_own(monkeypatch):
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 6))
    block = ConvMixerBlock(5, dtype="mixed_bfloat16")
    block.build(x.shape)
    randomize(block)
    fast = block(x, training=False)
    assert fast.dtype == "bfloat16"
    monkeypatch.setattr(
        "convmixer_tf.layers.acceleration.tensorflow_cpu", lambda: None
    )
    stock = block(x, training=False)
    assert relative_difference(fast, stock) < 2e-2


def test_half_precision_inference_does_not_round_between_gelu_and_norm():
    block = ConvMixerBlock(5, dtype="mixed_bfloat16")
    x = tf.zeros((1, 6, 6, 2), "bfloat16")
    block.build(x.shape)
    step = tf.function(lambda x: block(x, training=False))
    operations = step.get_concrete_function(x).graph.get_operations()
    casts = [op for op in operations if op.type == "Cast"]
    assert casts
    assert all(op.inputs[0].op.type != "Cast" for op in casts)


def test_plain_operations_on_request():
    def operations(plain):
        layer = ConvMixerBlock(5)
        layer.build((None, 8, 8, 4))

        @tf.function(input_signature=[tf.TensorSpec((2, 8, 8, 4))])
        def train(x):
            if not plain:
                return layer(x, training=True)
            with plain_operations():
                return layer(x, training=True)

        return {
            x.type for x in train.get_concrete_function().graph.get_operations()
        }

    fast = {"IdentityN", "FusedBatchNormV3"}
    assert fast <= operations(plain=False)
    assert not fast & operations(plain=True)
    assert tensorflow_cpu() is not None
