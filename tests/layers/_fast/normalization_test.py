"""Tests that the fused batch normalization equals Keras'."""

import numpy as np
import pytest

from convmixer_tf.layers.conv_act_norm import batch_norm
from convmixer_tf.layers.conv_act_norm import normalize
from convmixer_tf.layers.conv_act_norm import normalize_batch
from tests.helpers import randomize
from tests.helpers import relative_difference

tf = pytest.importorskip("tensorflow")

RNG = np.random.default_rng(0)


def _layer(shape, data_format="channels_last", dtype="float32"):
    layer = batch_norm(data_format, dtype, "norm")
    layer.build(shape)
    return randomize(layer)


def _pair(shape, **config):
    """Builds the layer twice, for the fast operation and for Keras."""
    return _layer(shape, **config), _layer(shape, **config)


def _ours(layer, x):
    return normalize(x, layer, training=True)


def _keras(layer, x):
    return layer(x, training=True)


def _two_steps(compute, layer, x, dy):
    """Returns output, gradients and running statistics after two steps."""
    weights = [weight.value for weight in layer.trainable_weights]
    for _ in range(2):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = compute(layer, x)
        gradients = tape.gradient(y, [x, *weights], dy)
    statistics = [weight.value for weight in layer.non_trainable_weights]
    return tf.nest.flatten((y, gradients, statistics))


def _is_fused(layer, x):
    step = tf.function(lambda x: _ours(layer, x))
    graph = step.get_concrete_function(x).graph
    return any(op.type == "FusedBatchNormV3" for op in graph.get_operations())


def _data(shape, dtype="float32"):
    # A mean far from zero shows whether the variance is computed around it.
    x, dy = RNG.normal([[[[[3.0]]]], [[[[0.0]]]]], 1, (2, *shape))
    return tf.constant(x, dtype), tf.constant(dy, dtype)


def _check_equal(layer, stock, x, dy, tolerance):
    ours = _two_steps(_ours, layer, x, dy)
    theirs = _two_steps(_keras, stock, x, dy)
    for actual, expected in zip(ours, theirs, strict=True):
        assert actual.dtype == expected.dtype
        assert relative_difference(actual, expected) < tolerance


@pytest.mark.parametrize("shape", [(4, 6, 5, 3), (1, 3, 2, 16), (64, 4, 4, 2)])
@pytest.mark.parametrize(
    ("policy", "tolerance"),
    [("float32", 3e-5), ("mixed_bfloat16", 1e-2), ("mixed_float16", 2e-3)],
)
def test_fused_equals_keras_own(policy, tolerance, shape):
    layer, stock = _pair(shape, dtype=policy)
    x, dy = _data(shape, layer.compute_dtype)
    assert _is_fused(layer, x)
    _check_equal(layer, stock, x, dy, tolerance)


def test_output_and_gradients_are_exact():
    shape = (4, 6, 5, 3)
    layer = _layer(shape)
    x, dy = _data(shape)
    before = [np.float64(w) for w in layer.non_trainable_weights]
    gamma, beta = (np.float64(w) for w in layer.trainable_weights)
    y, dx, dgamma, dbeta, *after = _two_steps(_ours, layer, x, dy)
    x, dy = np.float64(x), np.float64(dy)
    axes = (0, 1, 2)
    mean, variance = x.mean(axes), x.var(axes)
    normal = (x - mean) / np.sqrt(variance + 1e-5)
    centered = dy - dy.mean(axes) - normal * (dy * normal).mean(axes)
    for actual, expected in (
        (y, normal * gamma + beta),
        (dx, gamma / np.sqrt(variance + 1e-5) * centered),
        (dgamma, (dy * normal).sum(axes)),
        (dbeta, dy.sum(axes)),
        (after[0], 0.81 * before[0] + 0.19 * mean),
        (after[1], 0.81 * before[1] + 0.19 * variance),
    ):
        assert relative_difference(actual, expected) < 1e-5


def test_one_value_per_channel_has_no_variance():
    layer, stock = _pair((1, 1, 1, 3))
    x, _ = _data((1, 1, 1, 3))
    _keras(stock, x)
    output = _ours(layer, x)
    np.testing.assert_allclose(output[0, 0, 0], layer.beta.value, atol=1e-5)
    for ours, theirs in zip(layer.weights, stock.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({"data_format": "channels_first"}, (2, 3, 4, 5)),
        ({"dtype": "float64"}, (2, 4, 5, 3)),
        ({"synchronized": True}, (2, 4, 5, 3)),
    ],
    ids=str,
)
def test_elsewhere_it_is_keras_own(config, shape):
    synchronized = config.pop("synchronized", False)
    layer, stock = _pair(shape, **config)
    # As in training with `sync_batch_norm`.
    layer.synchronized = stock.synchronized = synchronized
    x, dy = tf.constant(RNG.normal(size=(2, *shape)), layer.compute_dtype)
    assert not _is_fused(layer, x)
    _check_equal(layer, stock, x, dy, 1e-5)


def test_inference_and_frozen_layers_use_the_running_statistics():
    layer, stock = _pair((2, 4, 5, 3))
    x, _ = _data((2, 4, 5, 3))
    np.testing.assert_array_equal(normalize(x, layer, False), stock(x))
    layer.trainable = False
    np.testing.assert_array_equal(_ours(layer, x), stock(x))
    for ours, theirs in zip(layer.weights, stock.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_dynamic_shape_in_a_graph(jit_compile):
    layer, stock = _pair((None, None, None, 3))
    x, dy = _data((2, 4, 5, 3))
    anything = tf.TensorSpec((None, None, None, 3))

    @tf.function(input_signature=[anything] * 2, jit_compile=jit_compile)
    def steps(x, dy):
        return _two_steps(_ours, layer, x, dy)

    for actual, expected in zip(
        steps(x, dy), _two_steps(_keras, stock, x, dy), strict=True
    ):
        assert relative_difference(actual, expected) < 1e-5


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_pure_part_changes_nothing_and_agrees(data_format):
    layer = _layer((2, 4, 5, 4), data_format)
    x, _ = _data((2, 4, 5, 4))
    before = [weight.numpy() for weight in layer.weights]
    outputs, mean, variance = normalize_batch(x, layer)
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    np.testing.assert_allclose(outputs, _keras(layer, x), atol=1e-5)
    axes = tuple({0, 1, 2, 3} - {layer.axis % 4})
    np.testing.assert_allclose(mean, np.mean(x, axes), rtol=1e-5)
    np.testing.assert_allclose(variance, np.var(x, axes), rtol=1e-5)


def test_second_order_gradient():
    layer, stock = _pair((2, 4, 5, 3))
    x, dy = _data((2, 4, 5, 3))

    def second(compute, layer):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = compute(layer, x)
            penalty = tf.reduce_sum(inner.gradient(y, x, dy) ** 2)
        return outer.gradient(penalty, x)

    assert (
        relative_difference(second(_ours, layer), second(_keras, stock)) < 1e-4
    )


def test_every_replica_uses_and_keeps_its_own_statistics(two_replicas):
    strategy = two_replicas
    x, _ = _data((4, 5, 5, 3))
    with strategy.scope():
        layer = _layer((None, 5, 5, 3))
    before = layer.moving_mean.numpy()
    dataset = tf.data.Dataset.from_tensors(x).unbatch().batch(4)
    (batch,) = strategy.experimental_distribute_dataset(dataset)

    @tf.function
    def step(x):
        return strategy.run(lambda x: _ours(layer, x), args=(x,))

    outputs = strategy.experimental_local_results(step(batch))
    moving = strategy.experimental_local_results(layer.moving_mean.value)
    for i, half in enumerate((x[:2], x[2:])):
        expected, mean, _ = normalize_batch(half, layer)
        np.testing.assert_allclose(outputs[i], expected, atol=1e-5)
        np.testing.assert_allclose(
            moving[i], 0.9 * before + 0.1 * mean, rtol=1e-5
        )
