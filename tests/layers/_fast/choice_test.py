"""Tests where the fast operations are used."""

import numpy as np
import pytest

from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.layers._fast.choice import faster_than_keras
from convmixer_tf.layers._fast.choice import plain_operations
from tests.helpers import randomize
from tests.helpers import relative_difference
from tests.helpers import run_python

tf = pytest.importorskip("tensorflow")


def _step(block, x, dy):
    weights = [weight.value for weight in block.trainable_weights]
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = block(x, training=True)
    gradients = tape.gradient(y, [x, *weights], dy)
    return y, gradients, [w.value for w in block.non_trainable_weights]


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_block_trains_as_with_plain_operations(data_format, remat):
    x, dy = np.random.default_rng(0).normal(size=(2, 2, 6, 8, 8))
    x, dy = tf.constant(x, "float32"), tf.constant(dy, "float32")

    def result(graph):
        block = ConvMixerBlock(5, remat=remat, data_format=data_format)
        block.build(x.shape)
        step = tf.function(_step) if graph else _step
        return tf.nest.flatten(step(randomize(block), x, dy))

    fast, fast_eager = result(graph=True), result(graph=False)
    with plain_operations():
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


def test_half_precision_inference_follows_plain_operations():
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 6))
    block = ConvMixerBlock(5, dtype="mixed_bfloat16")
    block.build(x.shape)
    randomize(block)
    fast = block(x, training=False)
    assert fast.dtype == "bfloat16"
    with plain_operations():
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
    assert faster_than_keras() is not None


MODULES = """
import sys
import keras

before = set(sys.modules)  # Keras looks for other frameworks itself.
from convmixer_tf.layers import ConvMixerBlock

shape = (2, 7, 6, 4)
block = ConvMixerBlock(5)
block.build(shape)
files = set()

def spy(frame, event, argument):
    if "convmixer_tf" in frame.f_code.co_filename:
        files.add(frame.f_code.co_filename)

x = keras.ops.ones(shape)
for training in (False, True):
    files.clear()
    sys.setprofile(spy)
    block(x, training=training)
    sys.setprofile(None)
    assert 3 <= len(files) <= 5, files
others = {"tensorflow", "jax", "torch"} - {keras.backend.backend()}
print(*sorted(others & (set(sys.modules) - before)))
"""


@pytest.mark.peer
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_block_enters_few_files_and_one_framework(backend):
    pytest.importorskip(backend)
    printed = run_python(MODULES, KERAS_BACKEND=backend)
    assert printed.strip() == ""
