"""Tests the effective weights of quantized and LoRA layers."""

import keras
import numpy as np
import pytest
from keras import layers

from convmixer_tf.weights.effective import effective_weights

INPUTS = 12


def built(layer):
    """The layer with random weights for 12 inputs."""
    layer.build((None, INPUTS))
    randomize(layer)
    return layer


def randomize(layer):
    rng = np.random.default_rng(0)
    for variable in layer.variables:
        variable.assign(rng.normal(size=variable.shape))


def assert_computes_with(layer, kernel, bias):
    """Measures the kernel of a layer, one input after the other.

    A layer that rounds its inputs does not change 0 and 1.
    """
    rows = np.asarray(layer(np.eye(INPUTS, dtype="float32")))
    none = np.asarray(layer(np.zeros((1, INPUTS), "float32")))
    np.testing.assert_allclose(none[0], 0 if bias is None else bias, atol=1e-7)
    np.testing.assert_allclose(rows - none, kernel, atol=2e-6)
    assert kernel.dtype == np.float32
    # A kernel of zeros would be easy to read.
    assert np.abs(kernel).max() > 0.1


MODES = [
    ("int8", None),
    ("int4", None),
    ("int4", keras.quantizers.Int4QuantizationConfig(block_size=-1)),
    ("int4", keras.quantizers.Int4QuantizationConfig(block_size=5)),
]


@pytest.mark.parametrize(("units", "use_bias"), [(1, True), (5, False)])
@pytest.mark.parametrize(("mode", "config"), [*MODES, ("float8", None)])
def test_quantized_dense(units, use_bias, mode, config):
    layer = built(layers.Dense(units, use_bias=use_bias))
    before = np.asarray(layer.kernel)
    layer.quantize(mode, config=config)
    kernel, bias = effective_weights(layer)
    assert (bias is None) == (not use_bias)
    assert_computes_with(layer, kernel, bias)
    # A step is 1/15 of the range, and the error can be two steps.
    np.testing.assert_allclose(kernel, before, atol=np.ptp(before) / 7)


@pytest.mark.parametrize("units", [1, 4])
@pytest.mark.parametrize(("mode", "config"), MODES)
def test_quantized_dense_with_lora(units, mode, config):
    layer = built(layers.Dense(units))
    layer.quantize(mode, config=config)
    before, _ = effective_weights(layer)
    layer.enable_lora(2, lora_alpha=3)
    layer.lora_kernel_b.assign(np.full((2, units), 0.25))
    kernel, bias = effective_weights(layer)
    assert_computes_with(layer, kernel, bias)
    a, b = map(np.asarray, (layer.lora_kernel_a, layer.lora_kernel_b))
    np.testing.assert_allclose(kernel - before, 1.5 * a @ b, atol=1e-5)


def test_scaled_float8():
    layer = built(layers.Dense(5))
    layer.quantize("float8")
    layer.kernel_scale.assign(0.01)
    assert_computes_with(layer, *effective_weights(layer))


@pytest.mark.parametrize(
    ("mode", "bits", "group"),
    [("gptq", 4, 5), ("gptq", 8, -1), ("awq", 4, 5), ("awq", 4, -1)],
)
@pytest.mark.parametrize("units", [1, 5])
def test_calibrated_modes(mode, bits, group, units):
    layer = layers.Dense(units, dtype=f"{mode}/{bits}/{group}_from_float32")
    layer.build((None, INPUTS))
    rng = np.random.default_rng(0)
    shape = layer.quantized_kernel.shape
    packed = bits == 4 and units > 1
    top = 256 if packed or bits == 8 else 16
    layer.quantized_kernel.assign(rng.integers(0, top, shape))
    layer.kernel_scale.assign(rng.uniform(0.1, 1, layer.kernel_scale.shape))
    layer.kernel_zero.assign(rng.integers(0, 9, layer.kernel_zero.shape))
    if group > 0:
        layer.g_idx.assign(np.arange(INPUTS) // group)
    if mode == "awq":
        layer.awq_scales.assign(rng.uniform(0.5, 2, INPUTS))
    setattr(layer, f"is_{mode}_calibrated", True)
    kernel, bias = effective_weights(layer)
    rows = np.asarray(layer(np.eye(INPUTS, dtype="float32")))
    np.testing.assert_allclose(rows - bias, kernel, rtol=1e-5)


def test_not_yet_calibrated():
    layer = built(layers.Dense(5))
    before = np.asarray(layer.kernel)
    config = keras.quantizers.GPTQConfig(dataset=None, tokenizer=None)
    layer.quantize("gptq", config=config)
    np.testing.assert_array_equal(effective_weights(layer)[0], before)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_convolution_with_lora(policy):
    layer = layers.Conv2D(4, 2, dtype=policy)
    layer.build((None, 5, 5, 3))
    randomize(layer)
    base = np.asarray(layer.kernel)
    layer.enable_lora(2, lora_alpha=3)
    randomize(layer)
    kernel, bias = effective_weights(layer)
    a, b = map(np.asarray, (layer.lora_kernel_a, layer.lora_kernel_b))
    expected = np.einsum("hwir,ro->hwio", a, b) * 1.5 + base
    np.testing.assert_allclose(kernel, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(bias, np.asarray(layer.bias))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_plain_layer_keeps_every_bit(dtype):
    layer = layers.DepthwiseConv2D(3, dtype=dtype)
    layer.build((None, 5, 5, 4))
    kernel, bias = effective_weights(layer)
    assert kernel.dtype == bias.dtype == dtype
    np.testing.assert_array_equal(kernel, np.asarray(layer.kernel))


def test_layer_without_kernel():
    with pytest.raises(ValueError, match="`layer` must be a built layer"):
        effective_weights(layers.ReLU())
