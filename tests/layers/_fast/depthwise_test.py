"""Tests the fast depthwise gradients."""

import collections

import keras
import numpy as np
import pytest
from keras import layers

from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.layers.conv_act_norm import convolve
from tests.helpers import graph_nodes
from tests.helpers import randomize
from tests.helpers import relative_difference

tf = pytest.importorskip("tensorflow")
tf_depthwise = pytest.importorskip(
    "convmixer_tf.layers._fast.tensorflow_depthwise"
)

KERNELS = [4, 5, 9, (1, 4), (6, 5), (3, 8)]
MAPS = [(8, 8), (11, 6), (5, 12), (3, 2), (1, 1), (1, 7)]


def _convolve(layer, x, training=True):
    return convolve(x, layer, training)


def _layer(kernel_size, dim=3, **kwargs):
    layer = layers.DepthwiseConv2D(kernel_size, padding="same", **kwargs)
    first = layer.data_format == "channels_first"
    layer.build((None, dim, None, None) if first else (None, None, None, dim))
    return randomize(layer)


def _data(height, width, dim=3, batch=2, dtype="float32"):
    # The same for a test regardless of the previous tests.
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, batch, height, width, dim))
    return tf.constant(x, dtype), tf.constant(dy, dtype)


def _gradients(layer, x, dy, training=True):
    """Gradients with respect to the input, the kernel and the bias."""
    sources = [x, *(weight.value for weight in layer.trainable_weights)]
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = _convolve(layer, x, training)
    return tape.gradient(y, sources, dy)


def _exact_gradients(x, dy, kernel):
    """Computes the same in float64, from the definition."""
    x, dy, kernel = (np.float64(a) for a in (x, dy, kernel))
    (height, width), (rows, columns) = x.shape[1:3], kernel.shape[:2]
    above, left = (rows - 1) // 2, (columns - 1) // 2
    pad = [(above, rows - 1 - above), (left, columns - 1 - left)]
    padded = np.pad(x, [(0, 0), *pad, (0, 0)])
    dpadded, dkernel = np.zeros_like(padded), np.zeros_like(kernel)
    for i in range(rows):
        for j in range(columns):
            window = np.s_[:, i : i + height, j : j + width]
            dkernel[i, j, :, 0] = (padded[window] * dy).sum((0, 1, 2))
            dpadded[window] += dy * kernel[i, j, :, 0]
    dx = dpadded[:, above : above + height, left : left + width]
    return dx, dkernel, dy.sum((0, 1, 2))


def _ops(function, *arguments):
    """Counts the operations of a traced function and its callees."""
    graph = tf.function(function).get_concrete_function(*arguments).graph
    nodes = graph_nodes(graph.as_graph_def())
    return collections.Counter(node.op for node in nodes)


def _is_stock(layer, x, dy, training=True):
    ops = _ops(lambda x, dy: _gradients(layer, x, dy, training), x, dy)
    return ops["DepthwiseConv2dNativeBackpropFilter"] > 0


@pytest.mark.parametrize("size", MAPS)
@pytest.mark.parametrize("kernel_size", KERNELS)
def test_gradients_are_exact(kernel_size, size):
    layer, (x, dy) = _layer(kernel_size), _data(*size)
    assert not _is_stock(layer, x, dy)
    exact = _exact_gradients(x, dy, layer.kernel)
    for actual, expected in zip(_gradients(layer, x, dy), exact, strict=True):
        assert relative_difference(actual, expected) < 1e-6


@pytest.mark.parametrize("kernel_size", KERNELS)
def test_same_output_and_gradients_as_keras(kernel_size):
    layer, (x, dy) = _layer(kernel_size), _data(9, 7)
    stock = layers.DepthwiseConv2D(kernel_size, padding="same")
    stock.build(x.shape)
    stock.set_weights(layer.get_weights())
    np.testing.assert_array_equal(_convolve(layer, x), stock(x))
    with tf.GradientTape() as tape:
        y = stock(x)
    expected = tape.gradient(y, [w.value for w in stock.weights], dy)
    actual = _gradients(layer, x, dy)[1:]
    for ours, theirs in zip(actual, expected, strict=True):
        assert relative_difference(ours, theirs) < 1e-5


@pytest.mark.parametrize(
    ("kernel_size", "training"), [(3, True), ((9, 3), True), (5, False)]
)
def test_elsewhere_the_gradients_are_tensorflows_own(kernel_size, training):
    layer, (x, dy) = _layer(kernel_size), _data(9, 9)
    assert _is_stock(layer, x, dy, training)
    exact = _exact_gradients(x, dy, layer.kernel)
    actual = _gradients(layer, x, dy, training)
    for ours, expected in zip(actual, exact, strict=True):
        assert relative_difference(ours, expected) < 1e-6


@pytest.mark.parametrize(
    ("shape", "kernel_size", "dtype", "flips"),
    [
        ((None, 16, 16, 1024), (9, 9), "float32", True),
        ((8, 32, 32, 1536), (9, 9), "bfloat16", True),
        ((8, 32, 32, 1536), (9, 9), "float32", False),
        ((8, 16, 16, 256), (5, 5), "bfloat16", False),
        ((8, 32, 32, 768), (7, 7), "float16", False),
        ((8, 32, 32, 768), (7, 6), "bfloat16", False),
        ((8, None, 32, 768), (7, 7), "bfloat16", False),
    ],
)
def test_where_the_input_gradient_is_a_convolution(
    shape, kernel_size, dtype, flips
):
    kernel = tf.zeros((*kernel_size, shape[3], 1), dtype)

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf_depthwise.convolve(x, kernel)
        return tape.gradient(y, x)

    ops = _ops(step, tf.TensorSpec(shape, dtype))
    assert (ops["DepthwiseConv2dNativeBackpropInput"] == 0) == flips


@pytest.mark.parametrize("kernel_size", [5, (7, 5)])
def test_input_gradient_by_the_flipped_kernel(kernel_size, monkeypatch):
    monkeypatch.setattr(tf_depthwise, "_FLIPPED_FROM", 1)
    layer, (x, dy) = _layer(kernel_size), _data(6, 7)
    exact = _exact_gradients(x, dy, layer.kernel)
    for actual, expected in zip(_gradients(layer, x, dy), exact, strict=True):
        assert relative_difference(actual, expected) < 1e-6


def test_frozen_layer_computes_no_kernel_gradient():
    layer, (x, dy) = _layer(5), _data(9, 9)
    expected = _gradients(layer, x, dy)[0]
    layer.trainable = False
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = _convolve(layer, x)
    np.testing.assert_allclose(tape.gradient(y, x, dy), expected, rtol=1e-5)
    ops = _ops(lambda x: _convolve(layer, x), x)
    assert ops["IdentityN"] == 0  # It would indicate a custom gradient.


@pytest.mark.parametrize(
    ("values_in_cache", "images"), [(1, 1), (300, 2), (2000, 4)]
)
def test_images_go_in_groups_that_fit_the_cache(
    values_in_cache, images, monkeypatch
):
    monkeypatch.setattr(tf_depthwise, "_VALUES_IN_CACHE", values_in_cache)
    layer, (x, dy) = _layer(5), _data(6, 7, batch=12)  # 126 values per image
    filters = []
    depthwise_conv2d = tf.nn.depthwise_conv2d

    def spy(image, kernel, strides, padding, **kwargs):
        if padding == "VALID":
            filters.append(kernel.shape)
        return depthwise_conv2d(image, kernel, strides, padding, **kwargs)

    monkeypatch.setattr(tf.nn, "depthwise_conv2d", spy)
    actual = _gradients(layer, x, dy)[1]
    assert filters == [(6, 7, images * 3, 1)] * (12 // images)
    exact = _exact_gradients(x, dy, layer.kernel)[1]
    assert relative_difference(actual, exact) < 1e-6


def _jitted(layer, x, dy):
    return tf.function(_gradients, jit_compile=True)(layer, x, dy)


def _dynamic(layer, x, dy):
    anything = tf.TensorSpec((None, None, None, 3))

    @tf.function(input_signature=[anything, anything])
    def gradients(x, dy):
        return _gradients(layer, x, dy)

    return gradients(x, dy)


def _rematerialized(layer, x, dy):
    weights = [weight.value for weight in layer.trainable_weights]
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = keras.remat(lambda x: _convolve(layer, x))(x)
    return tape.gradient(y, [x, *weights], dy)


@pytest.mark.parametrize(
    "context", [tf.function(_gradients), _jitted, _dynamic, _rematerialized]
)
def test_same_gradients_in_every_context(context):
    layer, (x, dy) = _layer((6, 5)), _data(7, 9)
    exact = _exact_gradients(x, dy, layer.kernel)
    for actual, expected in zip(context(layer, x, dy), exact, strict=True):
        assert relative_difference(actual, expected) < 1e-6


def test_empty_batch_has_zero_gradients():
    layer, (x, dy) = _layer(5), _data(6, 6)
    _, kernel, bias = _gradients(layer, x[:0], dy[:0])
    np.testing.assert_array_equal(kernel, np.zeros((5, 5, 3, 1)))
    np.testing.assert_array_equal(bias, np.zeros(3))


@pytest.mark.parametrize(
    ("policy", "tolerance"),
    [("mixed_bfloat16", 8e-3), ("mixed_float16", 1e-3), ("float64", 1e-13)],
)
def test_other_precisions_round_once(policy, tolerance):
    layer = _layer(5, dtype=policy)
    x, dy = _data(8, 8, batch=64, dtype=layer.compute_dtype)
    kernel = tf.cast(layer.kernel.value, layer.compute_dtype)
    exact = _exact_gradients(x, dy, kernel)[1]
    actual = _gradients(layer, x, dy)[1]
    assert actual.dtype == layer.variable_dtype
    assert relative_difference(actual, exact) < tolerance


def test_channels_first():
    layer, (x, dy) = _layer(5, data_format="channels_first"), _data(8, 6)
    exact = _exact_gradients(x, dy, layer.kernel)
    first = [tf.transpose(a, (0, 3, 1, 2)) for a in (x, dy)]
    assert not _is_stock(layer, *first)
    dx, *rest = _gradients(layer, *first)
    actual = [tf.transpose(dx, (0, 2, 3, 1)), *rest]
    for ours, expected in zip(actual, exact, strict=True):
        assert relative_difference(ours, expected) < 1e-6


def test_second_order_gradient():
    layer, (x, dy) = _layer(4), _data(5, 6)

    def second(training):
        with tf.GradientTape() as tape:
            tape.watch([x, dy])
            dx, dkernel, _ = _gradients(layer, x, dy, training)
            penalty = tf.reduce_sum(dkernel**2) + tf.reduce_sum(dx**2)
        return tape.gradient(penalty, [x, dy, layer.kernel.value])

    for ours, stock in zip(second(True), second(False), strict=True):
        assert relative_difference(ours, stock) < 1e-5


def test_two_replicas_sum_to_the_whole_batch(two_replicas):
    strategy = two_replicas
    x, dy = _data(7, 7, batch=4)
    with strategy.scope():
        layer = _layer(5)
    halves = tf.data.Dataset.from_tensor_slices((x, dy)).batch(4)
    (batch,) = strategy.experimental_distribute_dataset(halves)

    @tf.function
    def step(x, dy):
        return strategy.reduce(
            "SUM", strategy.run(_gradients, (layer, x, dy))[1], axis=None
        )

    expected = _exact_gradients(x, dy, layer.kernel)[1]
    assert relative_difference(step(*batch), expected) < 1e-6


def _block():
    block = ConvMixerBlock(5)
    return randomize(keras.Sequential([keras.Input((8, 6, 4)), block]))


def test_saved_model_infers_the_same(tmp_path):
    model, (x, _) = _block(), _data(8, 6, dim=4)
    model(x, training=True)
    model.export(tmp_path / "model", verbose=False)
    restored = tf.saved_model.load(tmp_path / "model")
    np.testing.assert_allclose(restored.serve(x), model(x), atol=1e-6)


def test_inference_graph_is_plain():
    model, (x, _) = _block(), _data(8, 6, dim=4)
    ops = _ops(lambda x: model(x, training=False), x)
    assert ops["DepthwiseConv2dNative"] == 1
    assert ops["Conv2D"] == 1
    assert not {"IdentityN", "While", "PartitionedCall"} & set(ops)


def test_converted_model_has_builtin_operations_only():
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    model, (x, _) = _block(), _data(8, 6, dim=4, batch=1)
    model(x, training=True)
    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    runner = interpreter.Interpreter(
        model_content=content,
        experimental_op_resolver_type=(
            interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        ),
    )
    runner.allocate_tensors()
    ops = collections.Counter(
        details["op_name"] for details in runner._get_ops_details()
    )
    assert ops["DEPTHWISE_CONV_2D"] == ops["CONV_2D"] == 1
    assert ops["GELU"] == 2
    assert set(ops) == {"DEPTHWISE_CONV_2D", "CONV_2D", "GELU", "MUL", "ADD"}
    runner.set_tensor(runner.get_input_details()[0]["index"], x)
    runner.invoke()
    output = runner.get_tensor(runner.get_output_details()[0]["index"])
    np.testing.assert_allclose(output, model(x), atol=1e-5)
