"""Rounds as the file does, for tensorflow-model-optimization.

In the worker's process only. It follows litert-quantizer, which writes the
file. Weights are symmetric around 0, with a step for each output channel. 4-bit
weights are clipped to the range with the least squared error. Layer outputs
have 8 bits, with one step for all channels.
"""

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

_quantization = tfmot.quantization.keras
_BATCH_SIZE = 64
_NEWTON_STEPS = 10  # As in litert-quantizer.
_BITS = {"int8": 8, "int4": 4}
_KERNELS = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel"}


class Rounding:
    """Rounds the same tensors as `quantization.quantize`.

    Args:
        nodes: Layers from `graph.describe`.
        quantization: `"int8"` or `"int4"`.
    """

    def __init__(self, nodes, quantization):
        self._plan = plan_rounding(nodes, quantization)
        self._bits = _BITS[quantization]
        self._outputs = {}

    def wrap(self, node, layer):
        """Wraps a layer if the file rounds its kernel or its output."""
        name = node["name"]
        kernel, rounds_outputs = self._plan[name]
        if rounds_outputs:
            self._outputs[name] = Outputs()
        elif kernel is None:
            return layer
        config = RoundedLayer(kernel, self._bits, self._outputs.get(name))
        return _quantization.QuantizeWrapperV2(layer, config)

    def set_ranges(self, ranges):
        """Sets the ranges of the outputs.

        Args:
            ranges: Ranges from `measure_ranges`.
        """
        for name, outputs in self._outputs.items():
            outputs.set_range(*ranges[name])


def plan_rounding(nodes, quantization):
    """Selects the tensors to round, like `quantization.quantize`.

    For "int4", these are the kernels of the 1 x 1 convolutions. The file also
    rounds their inputs, with a range that depends on the image; this is not
    simulated.

    For "int8", these are all tensors, with exceptions. The stem, the first
    scaling of its output, pooling and the classifier compute in float. A ReLU
    and the preceding layer become one operator. Concatenated tensors share the
    range of the result.

    Args:
        nodes: Layers from `graph.describe`.
        quantization: `"int8"` or `"int4"`.

    Returns:
        Dictionary from layer names to pairs: the name of the kernel to round,
        or `None`; and whether to round the layer's output.
    """
    if quantization == "int4":
        return {
            node["name"]: ("kernel" if _is_pointwise(node) else None, False)
            for node in nodes
        }
    consumers = {node["name"]: [] for node in nodes}
    for node in nodes:
        for source in node["inputs"]:
            consumers[source].append(node)
    plan = {}
    for node in nodes:
        name, kind = node["name"], node["kind"]
        is_stem = name == "image" or name.startswith("patch_embed")
        is_affine = name.startswith("block_0_affine")
        kernel = None if is_stem or is_affine else _KERNELS.get(kind)
        passed_on = consumers[name] and all(
            consumer["kind"] == "Concatenate"
            or consumer["arguments"].get("activation") == "relu"
            for consumer in consumers[name]
        )
        rounds_outputs = (
            kind in ("Activation", "Add", "Concatenate", *_KERNELS)
            and not is_stem
            and not passed_on
        )
        plan[name] = (kernel, rounds_outputs)
    return plan


def _is_pointwise(node):
    return (
        node["kind"] == "Conv2D"
        and not node["name"].startswith("patch_embed")
        and tuple(node["arguments"]["kernel_size"]) == (1, 1)
    )


def measure_ranges(model, images):
    """Finds the minimum and maximum output of each layer.

    Args:
        model: A `tf_keras.Model` without wrappers.
        images: uint8 array of pixels.

    Returns:
        Dictionary from layer names to pairs of floats.
    """
    layers = model.layers[1:]
    every = tf_keras.Model(model.input, [layer.output for layer in layers])
    lows, highs = [], []
    for start in range(0, len(images), _BATCH_SIZE):
        outputs = every(np.float32(images[start : start + _BATCH_SIZE]))
        lows.append([np.min(x) for x in outputs])
        highs.append([np.max(x) for x in outputs])
    lows, highs = np.min(lows, axis=0), np.max(highs, axis=0)
    return {
        layer.name: (float(low), float(high))
        for layer, low, high in zip(layers, lows, highs, strict=True)
    }


def clipping(kernel, bits):
    """Finds the range with the least rounding and clipping error.

    It uses OCTAV, Sakr et al., "Optimal Clipping and Magnitude-aware
    Differentiation for Improved Quantization-aware Training",
    https://arxiv.org/abs/2206.06501, equation (6).

    Args:
        kernel: Tensor whose last axis has the channels.
        bits: Integer, bits per weight.

    Returns:
        Tensor (channels,), the upper end of each channel's range.
    """
    size = tf.abs(kernel)
    axes = list(range(len(kernel.shape) - 1))
    rounding = 4.0**-bits / 3  # Squared error of a weight, over range squared.
    limit = tf.zeros(kernel.shape[-1:], kernel.dtype)
    for _ in range(_NEWTON_STEPS):
        beyond = tf.cast(size > limit, kernel.dtype)
        share = tf.reduce_mean(beyond, axes)
        excess = tf.reduce_mean(size * beyond, axes)
        limit = excess / (share + rounding * (1 - share))
    return limit


class ChannelWeights(_quantization.quantizers.Quantizer):
    """Rounds a kernel with a step that follows its current values.

    Args:
        depthwise: Boolean, whether the channels are the second-last axis.
        bits: Integer, bits per weight.
    """

    def __init__(self, depthwise, bits):
        self.depthwise = depthwise
        self.bits = bits

    def build(self, tensor_shape, name, layer):
        """Creates no variables."""
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        kernel = inputs[..., 0] if self.depthwise else inputs
        if self.bits == 4:
            limits = clipping(kernel, self.bits)
        else:
            axes = list(range(len(kernel.shape) - 1))
            limits = tf.reduce_max(tf.abs(kernel), axes)
        # A channel of zeros would have a step of 0.
        limits = tf.stop_gradient(tf.maximum(limits, 1e-9))
        kernel = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            kernel, -limits, limits, num_bits=self.bits, narrow_range=True
        )
        return kernel[..., None] if self.depthwise else kernel

    def get_config(self):
        """Returns the arguments."""
        return {"depthwise": self.depthwise, "bits": self.bits}


class Outputs(_quantization.quantizers.MovingAverageQuantizer):
    """Rounds a layer's output with a range that is updated in training."""

    def __init__(self):
        super().__init__(8, per_axis=False, symmetric=False, narrow_range=False)

    def build(self, tensor_shape, name, layer):
        """Creates the variables of the range."""
        self.range = super().build(tensor_shape, name, layer)
        return self.range

    def set_range(self, low, high):
        """Sets the range. It always includes 0."""
        self.range["min_var"].assign(min(low, 0.0))
        self.range["max_var"].assign(max(high, 0.0))

    def get_config(self):
        """Returns no arguments."""
        return {}


class RoundedLayer(_quantization.QuantizeConfig):
    """Selects what to round in a layer.

    Args:
        kernel: Name of the attribute that holds the layer's kernel, or `None`
            to keep it unchanged.
        bits: Integer, bits per weight.
        outputs: `Outputs`, or `None` to keep the outputs unchanged.
    """

    def __init__(self, kernel, bits, outputs):
        self.kernel = kernel
        self.bits = bits
        self.outputs = outputs

    def get_weights_and_quantizers(self, layer):
        """Returns pairs of a weight and its quantizer."""
        if self.kernel is None:
            return []
        rounding = ChannelWeights(self.kernel == "depthwise_kernel", self.bits)
        return [(getattr(layer, self.kernel), rounding)]

    def get_activations_and_quantizers(self, layer):
        """Returns an empty list because activations are separate layers."""
        return []

    def set_quantize_weights(self, layer, quantize_weights):
        """Sets the layer's kernel to the rounded kernel."""
        if self.kernel is not None:
            (kernel,) = quantize_weights
            setattr(layer, self.kernel, kernel)

    @tf.autograph.experimental.do_not_convert
    def set_quantize_activations(self, layer, quantize_activations):
        """Does nothing."""

    def get_output_quantizers(self, layer):
        """Returns the quantizers of the layer's output."""
        return [] if self.outputs is None else [self.outputs]

    def get_config(self):
        """Returns the arguments."""
        return {
            "kernel": self.kernel,
            "bits": self.bits,
            "outputs": self.outputs,
        }
