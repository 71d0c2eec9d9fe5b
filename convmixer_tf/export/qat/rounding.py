"""Rounding as in the file, for tensorflow-model-optimization.

In the worker's process only. It follows litert-quantizer, which writes the
file: weights are symmetric around 0, with a step for each output channel, and
those of 4 bits are clipped to the range of the least squared error; what a
layer returns has 8 bits, with one step for all channels.
"""

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

_quantization = tfmot.quantization.keras
_BATCH_SIZE = 64
_NEWTON_STEPS = 10  # litert-quantizer's.
_BITS = {"int8": 8, "int4": 4}
_KERNELS = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel"}


class Rounding:
    """Rounds what `quantization.quantize` rounds in the file.

    Args:
        nodes: What `graph.describe` returns.
        quantization: `"int8"` or `"int4"`.
    """

    def __init__(self, nodes, quantization):
        self._plan = plan_rounding(nodes, quantization)
        self._bits = _BITS[quantization]
        self._outputs = {}

    def wrap(self, node, layer):
        """Wraps a layer if the file rounds something of it."""
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
            ranges: What `measure_ranges` returns.
        """
        for name, outputs in self._outputs.items():
            outputs.set_range(*ranges[name])


def plan_rounding(nodes, quantization):
    """Decides what to round, as `quantization.quantize` does for the file.

    In "int4", the kernels of the 1 x 1 convolutions. The file also rounds
    their inputs, by a range that depends on the image; that is left out.

    In "int8", all with exceptions. The stem and the first scaling of its
    output compute in float, as do pooling and the classifier. A ReLU and the
    layer before it become one operator. What is concatenated shares the range
    of the whole.

    Args:
        nodes: What `graph.describe` returns.
        quantization: `"int8"` or `"int4"`.

    Returns:
        Dictionary from layers' names to pairs: the name of the kernel to
        round, or `None`; and whether to round the layer's output.
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
    """Finds the least and the largest value that each layer returns.

    Args:
        model: A `tf_keras.Model` without wrappers.
        images: uint8 array of pixels.

    Returns:
        Dictionary from layers' names to pairs of floats.
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
    """Finds the range in which rounding and clipping err the least.

    By OCTAV, Sakr et al., "Optimal Clipping and Magnitude-aware
    Differentiation for Improved Quantization-aware Training",
    https://arxiv.org/abs/2206.06501, equation (6).

    Args:
        kernel: Tensor whose last axis has the channels.
        bits: Integer, of each weight.

    Returns:
        Tensor (channels,), the largest value of each channel's range.
    """
    size = tf.abs(kernel)
    axes = list(range(len(kernel.shape) - 1))
    rounding = 4.0**-bits / 3  # Error of each weight, over the range squared.
    limit = tf.zeros(kernel.shape[-1:], kernel.dtype)
    for _ in range(_NEWTON_STEPS):
        beyond = tf.cast(size > limit, kernel.dtype)
        share = tf.reduce_mean(beyond, axes)
        excess = tf.reduce_mean(size * beyond, axes)
        limit = excess / (share + rounding * (1 - share))
    return limit


class ChannelWeights(_quantization.quantizers.Quantizer):
    """Rounds a kernel, with the step that its present values call for.

    Args:
        depthwise: Boolean, whether the channels are the last axis but one.
        bits: Integer, of each weight.
    """

    def __init__(self, depthwise, bits):
        self.depthwise = depthwise
        self.bits = bits

    def build(self, tensor_shape, name, layer):
        """Makes no variables."""
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        kernel = inputs[..., 0] if self.depthwise else inputs
        if self.bits == 4:
            limits = clipping(kernel, self.bits)
        else:
            axes = list(range(len(kernel.shape) - 1))
            limits = tf.reduce_max(tf.abs(kernel), axes)
        # A channel of zeros has no step of its own.
        limits = tf.stop_gradient(tf.maximum(limits, 1e-9))
        kernel = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            kernel, -limits, limits, num_bits=self.bits, narrow_range=True
        )
        return kernel[..., None] if self.depthwise else kernel

    def get_config(self):
        """Returns the arguments."""
        return {"depthwise": self.depthwise, "bits": self.bits}


class Outputs(_quantization.quantizers.MovingAverageQuantizer):
    """Rounds what a layer returns, in a range that follows the training."""

    def __init__(self):
        super().__init__(8, per_axis=False, symmetric=False, narrow_range=False)

    def build(self, tensor_shape, name, layer):
        """Makes the variables of the range."""
        self.range = super().build(tensor_shape, name, layer)
        return self.range

    def set_range(self, low, high):
        """Sets the range; 0 is always in it."""
        self.range["min_var"].assign(min(low, 0.0))
        self.range["max_var"].assign(max(high, 0.0))

    def get_config(self):
        """Returns the arguments, of which there are none."""
        return {}


class RoundedLayer(_quantization.QuantizeConfig):
    """What to round of a layer.

    Args:
        kernel: Name of the attribute that holds the layer's kernel, `None` to
            leave it as it is.
        bits: Integer, of each of its weights.
        outputs: `Outputs`, or `None` to leave them as they are.
    """

    def __init__(self, kernel, bits, outputs):
        self.kernel = kernel
        self.bits = bits
        self.outputs = outputs

    def get_weights_and_quantizers(self, layer):
        """Returns pairs of a weight and what rounds it."""
        if self.kernel is None:
            return []
        rounding = ChannelWeights(self.kernel == "depthwise_kernel", self.bits)
        return [(getattr(layer, self.kernel), rounding)]

    def get_activations_and_quantizers(self, layer):
        """Returns none: activations are layers of their own."""
        return []

    def set_quantize_weights(self, layer, quantize_weights):
        """Puts the rounded kernel into the layer."""
        if self.kernel is not None:
            (kernel,) = quantize_weights
            setattr(layer, self.kernel, kernel)

    @tf.autograph.experimental.do_not_convert
    def set_quantize_activations(self, layer, quantize_activations):
        """Does nothing."""

    def get_output_quantizers(self, layer):
        """Returns what rounds the layer's output."""
        return [] if self.outputs is None else [self.outputs]

    def get_config(self):
        """Returns the arguments."""
        return {
            "kernel": self.kernel,
            "bits": self.bits,
            "outputs": self.outputs,
        }
