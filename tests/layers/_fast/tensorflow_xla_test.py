"""Tests the XLA operations of TensorFlow for exact results."""

import keras
import numpy as np
import pytest
from scipy import special

from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.layers._fast import choice
from convmixer_tf.layers.conv_act_norm import activate
from convmixer_tf.layers.conv_act_norm import batch_norm
from convmixer_tf.layers.conv_act_norm import normalize
from tests.helpers import randomize
from tests.helpers import relative_difference

tf = pytest.importorskip("tensorflow")

from convmixer_tf.layers._fast import tensorflow_cpu  # noqa: E402
from convmixer_tf.layers._fast import tensorflow_xla  # noqa: E402


@pytest.fixture(autouse=True)
def _with_a_gpu(monkeypatch):
    monkeypatch.setattr(tensorflow_cpu, "only_cpus", lambda: False)


def test_it_is_used_where_xla_compiles():
    found = []

    def look(x):
        found.append(choice.faster_than_keras())
        return x

    for jit in (True, False):
        nested = tf.function(look)
        outer = tf.function(lambda x, f=nested: f(x), jit_compile=jit)
        outer(tf.constant(1.0))
    look(tf.constant(1.0))
    assert found == [tensorflow_xla, None, None]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 4e-3)]
)
def test_gelu_and_its_slope_are_exact(dtype, tolerance):
    x = tf.cast(np.linspace(-9, 9, 4001), dtype)

    @tf.function(jit_compile=True)
    def value_and_slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = activate(x, keras.activations.gelu, training=True)
        return y, tape.gradient(y, x)

    y, slope = (np.float64(tf.cast(v, "float64")) for v in value_and_slope(x))
    x = np.float64(tf.cast(x, "float64"))
    expected = special.ndtr(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    assert np.max(np.abs(y - x * special.ndtr(x)) / (1 + abs(x))) < tolerance
    assert np.max(np.abs(slope - expected)) < tolerance


def test_statistics_of_one_pass_lose_no_digits():
    """For values that are far from zero and close to each other."""
    x = np.random.default_rng(0).normal(300, 0.1, (4, 6, 6, 8))
    x = x.astype("float32")
    norm = batch_norm("channels_last", "float32", None)
    norm.build(x.shape)
    compute = tf.function(
        lambda x: normalize(x, norm, training=True), jit_compile=True
    )
    y, x = compute(tf.constant(x)), np.float64(x)
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    exact = (x - mean) / np.sqrt(variance + norm.epsilon)
    np.testing.assert_allclose(y, exact, atol=2e-3)
    moved = norm.moving_variance.numpy()
    np.testing.assert_allclose(moved, 0.9 + 0.1 * variance, rtol=1e-5)


def test_remat_recomputes_behind_a_barrier():
    x, dy = np.random.default_rng(0).normal(size=(2, 2, 6, 6, 4))
    x, dy = tf.constant(x, "float32"), tf.constant(dy, "float32")

    def step_of(remat):
        block = ConvMixerBlock(3, remat=remat)
        block.build(x.shape)
        randomize(block)

        @tf.function(jit_compile=True)
        def step(x, dy):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = block(x, training=True)
            weights = [w.value for w in block.trainable_weights]
            moved = [w.value for w in block.non_trainable_weights]
            return [y, *tape.gradient(y, [x, *weights], dy), *moved]

        return step

    plain, remat = map(step_of, (False, True))
    for ours, expected in zip(remat(x, dy), plain(x, dy), strict=True):
        assert relative_difference(ours, expected) < 2e-6
    program = remat.experimental_get_compiler_ir(x, dy)(stage="hlo")
    assert program.count(" opt-barrier(") == 1
