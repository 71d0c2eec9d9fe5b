"""Tests convolution gradients on a CPU, computed as matrix products."""

import keras
import numpy as np
import pytest
from keras.layers import Conv2D
from keras.layers import DepthwiseConv2D

from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.layers._fast.choice import plain_operations
from convmixer_tf.layers.conv_act_norm import convolve
from tests.helpers import graph_nodes
from tests.helpers import relative_difference

tf = pytest.importorskip("tensorflow")

SHAPE = (4, 32, 32, 6)  # Enough locations to detect sums in bfloat16.
LAYERS = {
    "1 x 1": lambda **kwargs: Conv2D(5, 1, **kwargs),
    "patches": lambda **kwargs: Conv2D(5, 2, strides=2, **kwargs),
    "patches, a rest": lambda **kwargs: Conv2D(5, 3, strides=3, **kwargs),
    "depthwise": lambda **kwargs: DepthwiseConv2D(5, padding="same", **kwargs),
    "depthwise, few columns": lambda **kwargs: DepthwiseConv2D(
        3, padding="same", **kwargs
    ),
}
TOLERANCES = {
    "float64": 1e-12,
    "float32": 1e-5,
    "mixed_float16": 1e-2,
    "mixed_bfloat16": 1e-2,
}


def _layer(name, **kwargs):
    keras.utils.set_random_seed(0)
    layer = LAYERS[name](data_format="channels_last", **kwargs)
    layer.build(SHAPE)
    layer.bias.assign(np.linspace(-1, 1, layer.bias.shape[0]))
    return layer


def _data(layer):
    rng = np.random.default_rng(0)
    x = rng.normal(0.3, size=SHAPE)
    dy = rng.normal(0.1, size=layer.compute_output_shape(SHAPE))
    # Values that half precision can represent.
    return [np.float64(tf.cast(values, "bfloat16")) for values in (x, dy)]


def _step(layer, x, dy, training=True):
    weights = [weight.value for weight in layer.weights]
    with tf.GradientTape() as tape:
        tape.watch([x, *weights])
        y = convolve(x, layer, training)
        loss = tf.reduce_sum(tf.cast(y, "float64") * dy)
    return y, *tape.gradient(loss, [x, *weights])


@pytest.mark.parametrize(
    ("training", "graph"),
    [(True, True), (True, False), (False, True)],
    ids=["graph", "eager", "inference"],
)
@pytest.mark.parametrize(("policy", "tolerance"), TOLERANCES.items())
@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_gradients(name, policy, tolerance, training, graph):
    layer, exact = _layer(name, dtype=policy), _layer(name, dtype="float64")
    # Values that half precision can represent.
    exact.set_weights(
        [tf.cast(weight, layer.compute_dtype) for weight in layer.weights]
    )
    x, dy = _data(layer)
    step = tf.function(_step) if graph else _step
    actual = step(layer, tf.cast(x, layer.compute_dtype), dy, training)
    with plain_operations():
        expected = _step(exact, tf.constant(x), dy)
    for ours, theirs in zip(actual, expected, strict=True):
        assert relative_difference(ours, theirs) < tolerance


def test_keras_own_bias_gradient_is_wrong_in_bfloat16():
    """If this fails, `convolve` needs one case less."""
    layer = keras.layers.Conv2D(5, 1, dtype="mixed_bfloat16")
    layer.build(SHAPE)
    x, dy = _data(layer)
    with tf.GradientTape() as tape:
        y = layer(tf.cast(x, "bfloat16"))
        loss = tf.reduce_sum(tf.cast(y, "float64") * dy)
    gradient = tape.gradient(loss, layer.bias.value)
    assert relative_difference(gradient, dy.sum((0, 1, 2))) > 0.02


def test_biases_in_bfloat16_are_right_in_plain_operations():
    layer = _layer("depthwise", dtype="mixed_bfloat16")
    x, dy = _data(layer)
    with plain_operations():
        *_, gradient = _step(layer, tf.cast(x, "bfloat16"), dy)
    assert relative_difference(gradient, dy.sum((0, 1, 2))) < 1e-2


@pytest.mark.parametrize("name", ["1 x 1", "patches", "patches, a rest"])
def test_products_are_for_training_on_a_cpu(name, monkeypatch):
    def convolves(layer, training=True):
        x, dy = _data(layer)
        x = tf.constant(x, "float32")
        step = tf.function(lambda x: _step(layer, x, dy, training))
        graph = step.get_concrete_function(x).graph
        kinds = {operation.type for operation in graph.get_operations()}
        return "Conv2DBackpropFilter" in kinds

    assert not convolves(_layer(name))
    assert convolves(_layer(name), training=False)
    assert convolves(_layer(name, trainable=False))
    with plain_operations():
        assert convolves(_layer(name))
    gpu = tf.config.LogicalDevice("/device:GPU:0", "GPU")
    devices = [*tf.config.list_logical_devices(), gpu]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda: devices)
    assert convolves(_layer(name))


@pytest.mark.parametrize("remat", [False, True])
def test_a_block_has_products(remat):
    block = ConvMixerBlock(5, data_format="channels_last", remat=remat)
    block.build(SHAPE)

    def step(x):
        with tf.GradientTape() as tape:
            y = block(x, training=True)
        return tape.gradient(y, block.pointwise.kernel.value)

    graph = tf.function(step).get_concrete_function(tf.TensorSpec(SHAPE)).graph
    kinds = {node.op for node in graph_nodes(graph.as_graph_def())}
    assert "MatMul" in kinds
    assert "Conv2DBackpropFilter" not in kinds


@pytest.mark.parametrize("channels", [None, SHAPE[-1]])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_any_size_of_batch_and_image(policy, channels):
    layer = _layer("1 x 1", dtype=policy)
    step = tf.function(
        lambda x: _step(layer, x, 1.0),
        input_signature=[tf.TensorSpec((None, None, None, channels))],
    )
    for shape in ((1, 1, 1, 6), (3, 5, 2, 6)):
        _, dx, kernel, bias = step(tf.ones(shape))
        locations = np.prod(shape[:-1])
        np.testing.assert_allclose(kernel, np.full((1, 1, 6, 5), locations))
        np.testing.assert_allclose(bias, np.full(5, locations))
        assert dx.shape == shape


def test_patches_of_images_of_any_size():
    layer = _layer("patches, a rest")
    step = tf.function(
        lambda x: _step(layer, x, 1.0),
        input_signature=[tf.TensorSpec((None, None, None, None))],
    )
    for shape in ((1, 3, 3, 6), (2, 10, 5, 6)):
        y, dx, kernel, _ = step(tf.ones(shape))
        patches = shape[0] * (shape[1] // 3) * (shape[2] // 3)
        np.testing.assert_allclose(kernel, np.full((3, 3, 6, 5), patches))
        assert y.shape == layer.compute_output_shape(shape)
        assert dx.shape == shape


@pytest.mark.parametrize("batch_size", [None, 2])
def test_patches_keep_the_sizes_that_are_known(batch_size):
    layer = _layer("patches, a rest")
    step = tf.function(lambda x: convolve(x, layer, training=True))
    images = tf.TensorSpec((batch_size, 10, 32, 6))
    (y,) = step.get_concrete_function(images).outputs
    assert y.shape == (batch_size, 3, 10, 5)


@pytest.mark.parametrize("name", ["1 x 1", "patches"])
def test_second_derivatives(name):
    layer = _layer(name, dtype="float64")
    x = tf.constant(_data(layer)[0])

    def penalty():
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = convolve(x, layer, training=True) ** 3
            slope = tape.gradient(y, [x, *(w.value for w in layer.weights)])
            total = sum(tf.reduce_sum(part**2) for part in slope)
        return outer.gradient(total, x)

    fast = penalty()
    with plain_operations():
        assert relative_difference(fast, penalty()) < 1e-10


def test_a_layer_of_another_dtype_casts():
    policy = keras.dtype_policies.DTypePolicyMap(default_policy="mixed_float16")
    policy[".*pointwise"] = "float32"
    block = ConvMixerBlock(5, dtype=policy)
    block.build(SHAPE)
    assert block.pointwise.compute_dtype == "float32"
    for training in (False, True):
        assert np.isfinite(block(tf.ones(SHAPE), training=training)).all()
