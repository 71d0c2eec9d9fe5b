"""Stock Keras layers with given weights, put together to a functional model."""

import numpy as np
from keras import layers

# Whatever the global settings are, and whatever the model was trained in.
STOCK = {"dtype": "float32", "data_format": "channels_last"}


def apply(layer, x, *weights):
    """Applies a new layer and gives it its weights.

    Args:
        layer: A Keras layer.
        x: Symbolic tensor.
        *weights: Arrays in the order of the layer's weights; None is left
            out.

    Returns:
        Symbolic tensor, the layer's output.
    """
    x = layer(x)
    layer.set_weights(
        [np.asarray(w, "float32") for w in weights if w is not None]
    )
    return x


def activate(x, activation, name):
    """Applies an activation, a function of a tensor."""
    return layers.Activation(activation, dtype="float32", name=name)(x)


def convolve(x, kernel, bias, name):
    """Applies a convolution whose stride is its kernel's size.

    Args:
        x: Symbolic tensor (batch, height, width, channels).
        kernel: Array (rows, columns, channels, dim).
        bias: Array (dim,).
        name: The layer's name.

    Returns:
        Symbolic tensor (batch, height // rows, width // columns, dim).
    """
    size = kernel.shape[:2]
    conv = layers.Conv2D(
        kernel.shape[-1], size, strides=size, name=name, **STOCK
    )
    return apply(conv, x, kernel, bias)


def scale(x, factor, shift, name):
    """Multiplies each channel by a factor and adds a shift.

    As a 1 x 1 depthwise convolution it is one operator in every runtime.

    Args:
        x: Symbolic tensor (batch, height, width, dim).
        factor: Array (dim,).
        shift: Array (dim,) or None.
        name: The layer's name.

    Returns:
        Symbolic tensor of the shape of `x`.
    """
    conv = layers.DepthwiseConv2D(
        1, use_bias=shift is not None, name=name, **STOCK
    )
    return apply(conv, x, factor[None, None, :, None], shift)
