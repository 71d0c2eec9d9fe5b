"""Tests the fused inference loop: same results, never in a file."""

import keras
import numpy as np
import pytest
from scipy import special

from convmixer_tf import ConvMixer
from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.layers._fast.choice import plain_operations
from tests.helpers import graph_nodes
from tests.helpers import randomize
from tests.helpers import relative_difference

tf = pytest.importorskip("tensorflow")
tensorflow_cpu = pytest.importorskip("convmixer_tf.layers._fast.tensorflow_cpu")
saved_model_pb2 = pytest.importorskip(
    "tensorflow.core.protobuf.saved_model_pb2"
)

SHAPE = (2, 8, 8, 6)
LOOPS = 2  # per block
GELU = keras.activations.gelu


def _block(**kwargs):
    kwargs.setdefault("data_format", "channels_last")
    block = ConvMixerBlock(5, **kwargs)
    block.build(SHAPE)
    return randomize(block)


def _network():
    return randomize(
        ConvMixer(8, 2, 3, 2, input_shape=(8, 8, 3), classes=3, weights=None)
    )


def _compiled(graph):
    """Counts the functions that a graph compiles with XLA."""
    if not hasattr(graph, "node"):
        graph = graph.as_graph_def()
    return sum(n.attr["_XlaMustCompile"].b for n in graph_nodes(graph))


def _in_run(function):
    """Returns the graph in which a strategy runs a function of a tensor."""
    run = tf.distribute.get_strategy().run
    step = tf.function(lambda x: run(function, (x,)))
    return step.get_concrete_function(tf.TensorSpec(SHAPE)).graph


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize(
    ("policy", "tolerance"),
    [
        ("float32", 1e-6),
        ("mixed_bfloat16", 2e-2),
        ("mixed_float16", 3e-3),
        ("bfloat16", 2e-2),
    ],
)
def test_loop_equals_plain_operations(policy, tolerance, activation):
    x = np.random.default_rng(0).normal(size=SHAPE)
    block = _block(activation=activation, dtype=policy)
    assert _compiled(_in_run(block)) == LOOPS
    with plain_operations():
        plain = block(x)
    run = tf.function(lambda x: tf.distribute.get_strategy().run(block, (x,)))
    for loop in (block(x), run(tf.constant(x, "float32"))):
        assert loop.dtype == plain.dtype
        assert relative_difference(loop, plain) < tolerance


def test_large_values_stay_exact():
    norm = _block().pointwise_norm
    x = tf.reshape(tf.constant([-1e30, -1e3, -9, 0, 1e3, 1e30]), (1, 1, 1, 6))
    loop = tensorflow_cpu.inference_loop(x, GELU, norm)
    np.testing.assert_allclose(loop(x, None), norm(GELU(x)), rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "digits", "tolerance"),
    [("float16", 11, 1e-6), ("bfloat16", 8, 5e-5)],
)
def test_half_precision_is_rounded_once(dtype, digits, tolerance):
    norm = _block(dtype=dtype).pointwise_norm
    x, shortcut = tf.cast(
        np.random.default_rng(0).normal(size=(2, *SHAPE)), dtype
    )
    exact = keras.layers.BatchNormalization(epsilon=norm.epsilon)
    exact.build(SHAPE)
    exact.set_weights([np.float32(w) for w in norm.get_weights()])
    expected = exact(GELU(tf.cast(x, "float32"))) + tf.cast(shortcut, "float32")
    loop = tensorflow_cpu.inference_loop(x, GELU, norm)
    np.testing.assert_allclose(
        tf.cast(loop(x, shortcut), "float32"),
        expected,
        rtol=2.0**-digits,
        atol=tolerance,
    )


def test_gelu_of_bfloat16_is_off_by_less_than_it_is_rounded():
    points = np.concatenate([np.linspace(-40, 40, 40001), [-1e30, 1e30]])
    x = tf.cast(points, "bfloat16")
    y = tf.function(tensorflow_cpu._loop_gelu, jit_compile=True)(x)
    assert y.dtype == "float32"
    x = tf.cast(x, "float64").numpy()
    exact = x * special.ndtr(x)
    error = np.abs(y - exact)
    assert (error / np.maximum(1, np.abs(exact))).max() < 2.6e-5
    far = np.abs(x) > 9
    np.testing.assert_array_equal(y[far], np.maximum(x[far], 0))


class Unhashable:
    __hash__ = None

    def __call__(self, x):
        return 2 * x


def test_any_function_is_an_activation():
    block = _block(activation=Unhashable())
    assert np.isfinite(block(tf.ones(SHAPE))).all()


def test_norm_of_another_dtype_settles_the_output():
    policy = keras.dtype_policies.DTypePolicyMap(default_policy="mixed_float16")
    policy[".*pointwise_norm"] = "float32"
    block = _block(dtype=policy)
    with plain_operations():
        assert block(tf.ones(SHAPE)).dtype == "float32"
    assert block(tf.ones(SHAPE)).dtype == "float32"


def test_frozen_norms_train_without_loops():
    block = _block(drop_path=0.5)
    block.depthwise_norm.trainable = block.pointwise_norm.trainable = False
    x = np.random.default_rng(0).normal(size=(64, *SHAPE[1:]))
    change = np.abs(block(x, training=True) - block(x)).max(axis=(1, 2, 3))
    assert (change > 1e-3).any()
    graph = _in_run(lambda x: block(x, training=True))
    assert _compiled(graph) == LOOPS  # The trained GELU's own.


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize(
    ("policy", "tolerance"),
    [("float32", 1e-5), ("mixed_bfloat16", 3e-2), ("mixed_float16", 5e-3)],
)
def test_gradients_of_inference_equal_those_of_plain_operations(
    policy, tolerance, activation
):
    block = _block(dtype=policy, activation=activation)
    x = tf.constant(np.random.default_rng(0).normal(size=SHAPE), "float32")

    def gradients():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = block(x, training=False)
        weights = [w.value for w in block.trainable_weights]
        return tape.gradient(y, [x, *weights])

    with plain_operations():
        plain = gradients()
    for ours, theirs in zip(gradients(), plain, strict=True):
        assert relative_difference(ours, theirs) < tolerance


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_base_in_inference_mode_is_trained(policy):
    class Classifier(keras.Model):
        def __init__(self):
            super().__init__()
            self.base = _network()
            self.head = keras.layers.Dense(2)

        def call(self, x):
            return self.head(self.base(x, training=False))

    keras.config.set_dtype_policy(policy)
    try:
        model = Classifier()
    finally:
        keras.config.set_dtype_policy("float32")
    x = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3))
    model(x)
    before = [np.array(weight) for weight in model.trainable_weights]
    model.compile("sgd", "mse")
    model.fit(x, np.ones((4, 2)), verbose=0)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert not np.array_equal(weight, old), weight.path


def test_nan_in_the_weights_stays():
    """A GPU's NaN has all bits set, and simple rounding turns it to zero."""
    nan = np.array([0x7FFFFFFF], "uint32").view("float32")
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        block = _block(dtype="mixed_bfloat16")
        weight = getattr(block.pointwise_norm, name)
        weight.assign(np.broadcast_to(nan, weight.shape))
        assert np.isnan(np.float32(block(tf.ones(SHAPE)))).all()


def test_predict_and_evaluate_have_the_loops(monkeypatch):
    loop, calls = tensorflow_cpu._gelu_loop, []

    def counted(*args):
        calls.append(tf.executing_eagerly())
        return loop(*args)

    monkeypatch.setattr(tensorflow_cpu, "_gelu_loop", counted)
    network = _network()
    network.compile(loss="categorical_crossentropy")
    x = np.float32(np.random.default_rng(0).uniform(0, 255, (5, 8, 8, 3)))
    y = np.eye(3)[[0, 1, 2, 0, 1]]
    with plain_operations():
        plain = network(x)
        losses = keras.losses.categorical_crossentropy(y, plain)
    assert not calls
    np.testing.assert_allclose(
        network.predict(x, batch_size=5, verbose=0), plain, atol=1e-6
    )
    assert calls == [False] * (1 + 2 * LOOPS)
    np.testing.assert_allclose(
        network.evaluate(x, y, batch_size=5, verbose=0),
        np.mean(losses),
        rtol=1e-5,
    )
    assert calls == 2 * [False] * (1 + 2 * LOOPS)


def test_the_loops_are_traced_for_predict_alone(tmp_path):
    network = _network()
    spec = tf.TensorSpec((None, 8, 8, 3))
    loops = 1 + 2 * LOOPS
    in_run = _in_run(lambda x: network(tf.ones((2, 8, 8, 3))))
    assert _compiled(in_run) == loops
    bare = tf.function(network).get_concrete_function(spec)
    assert _compiled(bare.graph) == 0
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        in_scope = tf.function(network).get_concrete_function(spec)
    assert _compiled(in_scope.graph) == 0

    network.predict(np.zeros((1, 8, 8, 3)), verbose=0)
    network.export(tmp_path, verbose=False)
    file = saved_model_pb2.SavedModel()
    file.ParseFromString((tmp_path / "saved_model.pb").read_bytes())
    assert _compiled(file.meta_graphs[0].graph_def) == 0


def test_replicas_have_the_loops():
    block = _block()
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    step = tf.function(lambda x: strategy.run(block, (x,)))
    graph = step.get_concrete_function(tf.TensorSpec(SHAPE)).graph
    assert _compiled(graph) == LOOPS


@pytest.mark.parametrize(
    "kwargs",
    [{"activation": "silu"}, {"data_format": "channels_first"}],
    ids=["silu", "channels_first"],
)
def test_other_blocks_have_none(kwargs):
    block = ConvMixerBlock(3, **kwargs)
    block.build(SHAPE)
    assert _compiled(_in_run(block)) == 0


def test_none_where_there_is_a_gpu_or_plain_operations(monkeypatch):
    block = _block()
    with plain_operations():
        assert _compiled(_in_run(block)) == 0
    devices = [
        *tf.config.list_logical_devices(),
        tf.config.LogicalDevice("/device:GPU:0", "GPU"),
    ]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda: devices)
    assert _compiled(_in_run(block)) == 0


def test_static_shapes_survive_many_sizes():
    block = _block()
    run = tf.distribute.get_strategy().run
    shapes = []

    @tf.function(reduce_retracing=False)
    def step(x):
        shapes.append(run(block, (x,)).shape)

    sizes = [(1, 4, 4, 6), (2, 5, 4, 6), (3, 6, 7, 6)]
    for size in sizes:
        step(tf.zeros(size))
    assert shapes == sizes
