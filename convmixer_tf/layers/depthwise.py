"""A depthwise convolution in whichever form is fast."""

import keras
from keras import layers
from keras import ops

from convmixer_tf.layers.convolution import add_bias
from convmixer_tf.layers.depthwise_plan import Plan
from convmixer_tf.layers.depthwise_plan import choose_plan
from convmixer_tf.layers.depthwise_plan import convolve


@keras.saving.register_keras_serializable("convmixer_tf")
class DepthwiseConv2D(layers.DepthwiseConv2D):
    """Keras' `DepthwiseConv2D`, computed in other ways where they are faster.

    Arguments, weights, their names and all numbers are Keras' own. With
    `"same"` padding, no strides, no dilation and a depth multiplier of 1,
    `set_depthwise` says in which form each pass is computed. By default, that
    is Keras' own, but on CPUs for kernels of at least 4 columns: there all
    passes with JAX, and the gradients with TensorFlow, have what is faster.
    In training, gradients are then our own, which JAX's forward mode does not
    take: that needs `set_depthwise("native")`.

    Args:
        *args: What `keras.layers.DepthwiseConv2D` takes.
        **kwargs: What `keras.layers.DepthwiseConv2D` takes.

    Input shape:
        (batch, height, width, dim). For `"channels_first"`: (batch, dim,
        height, width).

    Output shape:
        Of the same rank; as for `keras.layers.DepthwiseConv2D`.

    Example:

    ```python
    patches = np.zeros((1, 16, 16, 64))
    DepthwiseConv2D(9, padding="same")(patches).shape  # (1, 16, 16, 64)
    ```
    """

    def call(self, inputs, training=None):
        first = self.data_format == "channels_first"
        trains = bool(training and self.trainable)
        plan = self._plan(inputs, trains)
        if plan != Plan():
            x = ops.transpose(inputs, (0, 2, 3, 1)) if first else inputs
            x = convolve(x, ops.convert_to_tensor(self.kernel), plan, trains)
            if first:
                x = ops.transpose(x, (0, 3, 1, 2))
        else:
            x = ops.depthwise_conv(
                inputs,
                self.kernel,
                strides=self.strides,
                padding=self.padding,
                dilation_rate=self.dilation_rate,
                data_format=self.data_format,
            )
        if self.use_bias:
            x = add_bias(x, self.bias, self.data_format, training)
        return x if self.activation is None else self.activation(x)

    def residual(self, inputs, activation, norm):
        """Computes `inputs + norm(activation(self(inputs)))`, in inference.

        Args:
            inputs: Tensor (batch, height, width, dim).
            activation: A function of a tensor, element by element.
            norm: A `BatchNormalization` of the same dtype policy.

        Returns:
            Tensor of the shape of `inputs`; `None` where there is no kernel
            for all of it: it comes with the form `"pallas"`.
        """
        fits = self.data_format == "channels_last" and self.use_bias
        if not fits or self._plan(inputs, False).forward != "pallas":
            return None
        from convmixer_tf.layers import pallas_depthwise

        try:
            return pallas_depthwise.residual(
                pallas_depthwise.activation_of(activation),
                inputs,
                ops.convert_to_tensor(self.kernel),
                ops.cast(self.bias, "float32"),
                *norm.scale_and_offset(),
            )
        except NotImplementedError:
            return None

    def _plan(self, inputs, trains):
        """The forms to compute in; all native, where only Keras' own fits."""
        fits = (
            self.padding == "same"
            and self.depth_multiplier == 1
            and set(self.strides) == set(self.dilation_rate) == {1}
        )
        if not fits:
            return Plan()
        batch, *rest = inputs.shape
        if self.data_format == "channels_first":
            rest = (*rest[1:], rest[0])
        return choose_plan(
            (batch, *rest), self.kernel_size, self.compute_dtype, trains
        )
