"""A depthwise convolution that trains fast on a CPU."""

import keras
from keras import layers
from keras import ops

from convmixer_tf.layers.acceleration import tensorflow_cpu
from convmixer_tf.layers.convolution import add_bias


@keras.saving.register_keras_serializable("convmixer_tf")
class DepthwiseConv2D(layers.DepthwiseConv2D):
    """Keras' `DepthwiseConv2D`, with a fast gradient of large kernels.

    Arguments, weights, their names and all numbers are Keras' own. Only in
    training, with TensorFlow on CPUs, `"same"` padding, no strides, no
    dilation, a depth multiplier of 1 and a kernel of at least 4 columns, the
    gradient with respect to the kernel is computed in another way: it is the
    depthwise convolution of the input with the output's gradient as kernel.

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
        fast = (
            training
            and self.trainable
            and self._trains_slowly()
            and tensorflow_cpu()
        )
        first = self.data_format == "channels_first"
        if fast:
            x = ops.transpose(inputs, (0, 2, 3, 1)) if first else inputs
            x = fast.depthwise_conv2d(x, ops.convert_to_tensor(self.kernel))
            if self.use_bias:
                x = ops.add(x, self.bias)
            if first:
                x = ops.transpose(x, (0, 3, 1, 2))
        elif first and self.use_bias:
            x = ops.depthwise_conv(
                inputs,
                self.kernel,
                strides=self.strides,
                padding=self.padding,
                dilation_rate=self.dilation_rate,
                data_format=self.data_format,
            )
            x = add_bias(x, self.bias)
        else:
            return super().call(inputs)
        return x if self.activation is None else self.activation(x)

    def _trains_slowly(self):
        # TensorFlow's own gradient is fast for up to 3 columns, and slows down
        # tenfold from 4 on, whatever the shapes and the dtype.
        return (
            self.kernel_size[1] >= 4
            and self.padding == "same"
            and self.depth_multiplier == 1
            and set(self.strides) == set(self.dilation_rate) == {1}
        )
