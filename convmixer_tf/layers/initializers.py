"""The initializer that PyTorch gives a convolution or a linear layer."""

import math

from keras import initializers


def torch_uniform(fan_in):
    """Builds PyTorch's default initializer, for a kernel or for its bias.

    Keras' own defaults are Glorot's and a zero bias; Glorot's also counts the
    channels of a depthwise kernel as inputs, though each output sees one.

    Args:
        fan_in: Integer, how many inputs one output is computed from.

    Returns:
        A new initializer, uniform in +-1/sqrt(fan_in). One that is used twice
        would draw the same values twice.
    """
    limit = 1 / math.sqrt(fan_in)
    return initializers.RandomUniform(-limit, limit)
