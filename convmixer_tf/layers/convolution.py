"""A convolution whose bias goes to the channels, whatever the image's size."""

from keras import layers
from keras import ops


class Conv2D(layers.Conv2D):
    """Keras' `Conv2D`, right in `"channels_first"` for images of any width.

    See `add_bias`. Arguments, weights and their names are Keras' own.
    """

    def call(self, inputs):
        if self.data_format == "channels_last" or not self.use_bias:
            return super().call(inputs)
        x = add_bias(self.convolution_op(inputs, self.kernel), self.bias)
        return x if self.activation is None else self.activation(x)


def add_bias(x, bias):
    """Adds a bias to the channels of images in `"channels_first"`.

    Keras 3.15's layers do so by `keras.ops.add`, which with TensorFlow adds
    the bias along the width if the width equals the number of channels.

    Args:
        x: Tensor (batch, channels, height, width).
        bias: Tensor (channels,).

    Returns:
        Tensor of the shape of `x`.
    """
    return x + ops.reshape(bias, (-1, 1, 1))
