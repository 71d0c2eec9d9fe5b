"""Rounding as in an int8 file, for tensorflow-model-optimization.

In the worker's process only. As ai-edge-quantizer does it for the file:
weights around 0, with a step for each output channel, those of 4 bits clipped
to the range of the least squared error; what a layer gives in 8 bits, with one
step for all.
"""

import tensorflow as tf
import tensorflow_model_optimization as tfmot

_quantization = tfmot.quantization.keras
_NEWTON_STEPS = 10  # ai-edge-quantizer's.


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
        """Keeps nothing."""
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
    """Rounds what a layer gives, within a range that follows the training."""

    def __init__(self):
        super().__init__(8, per_axis=False, symmetric=False, narrow_range=False)

    def build(self, tensor_shape, name, layer):
        """Makes the variables of the range, and keeps them at hand."""
        self.range = super().build(tensor_shape, name, layer)
        return self.range

    def set_range(self, low, high):
        """Sets the range; 0 is always within."""
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
