"""Convolutions as Keras has them, right and fast in all of their passes."""

import operator

from keras import layers
from keras import ops

from convmixer_tf.layers.acceleration import tensorflow_cpu


class Conv2D(layers.Conv2D):
    """Keras' `Conv2D`, whose gradients are right and fast.

    See `add_bias`. And where TensorFlow trains on CPUs, the gradients of
    convolutions of square patches that do not overlap, 1 x 1 among them, are
    matrix products. Arguments, weights and their names are Keras' own.
    """

    def call(self, inputs, training=None):
        fast = training and self._is_product() and tensorflow_cpu()
        convolve = fast.patchwise if fast else self.convolution_op
        x = convolve(inputs, self.kernel)
        if self.use_bias:
            x = add_bias(x, self.bias, self.data_format, training)
        return x if self.activation is None else self.activation(x)

    def _is_product(self):
        return (
            self.trainable
            and self.data_format == "channels_last"
            and self.groups == 1
            and self.padding == "valid"
            and len({*self.kernel_size, *self.strides}) == 1
        )


def add_bias(x, bias, data_format, training=None):
    """Adds a bias to the channels of images.

    Keras 3.15's layers do so by `keras.ops.add`. With TensorFlow that adds it
    along the width in `"channels_first"`, if the width equals the number of
    channels, and on a CPU the bias' gradient is summed up in bfloat16 where the
    images are: with 16,384 locations it is wrong by half or more.

    Args:
        x: Tensor (batch, height, width, channels) or, for `"channels_first"`,
            (batch, channels, height, width).
        bias: Tensor (channels,).
        data_format: `"channels_last"` or `"channels_first"`.
        training: Boolean, whether gradients are going to be asked for.

    Returns:
        Tensor of the shape of `x`.
    """
    if data_format == "channels_first":
        return x + ops.reshape(bias, (-1, 1, 1))
    if x.dtype != "bfloat16":
        return ops.add(x, bias)
    fast = training and tensorflow_cpu()
    add = fast.add_bias if fast else operator.add  # Whose gradient is right.
    return add(x, ops.convert_to_tensor(bias))
