"""Tests that TensorFlow's fast GELU on a CPU is the exact GELU."""

import keras
import numpy as np
import pytest
from scipy import special

from convmixer_tf.layers.conv_act_norm import activate

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
        y = activate(x, keras.activations.gelu, training)
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
        activate(x, activation, training=True), activation(x)
    )


def test_approximate_gelu_stays_approximate():
    def approximate(x):
        return keras.activations.gelu(x, approximate=True)

    x = tf.constant([-1.0, 0.5, 2.0])
    actual = activate(x, approximate, training=True)
    np.testing.assert_array_equal(actual, approximate(x))
    assert np.abs(actual - _exact(x.numpy())).max() > 1e-5
