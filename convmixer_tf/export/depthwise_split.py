"""A large depthwise convolution as a sum of small ones, exactly.

The k x k taps of a kernel are dealt out to parts, each of which takes some of
the rows and some of the columns: see `depthwise_parts`.
"""

import numpy as np
from keras import layers

from convmixer_tf.export.construction import STOCK
from convmixer_tf.export.construction import apply
from convmixer_tf.export.depthwise_parts import offsets


def depthwise(x, kernel, bias, parts, name):
    """Applies a depthwise convolution with "same" padding in parts.

    Args:
        x: Symbolic tensor (batch, height, width, dim).
        kernel: Array (side, side, dim).
        bias: Array (dim,).
        parts: Tuple of `Part`, which have every tap once.
        name: Name of the layer, or prefix of those of the parts.

    Returns:
        Symbolic tensor of the shape of `x`.
    """
    if len(parts) == 1:
        return _convolve(x, kernel, bias, parts[0], name)
    total, *others = (
        _convolve(x, kernel, None if i else bias, part, f"{name}_part_{i}")
        for i, part in enumerate(parts)
    )
    for i, other in enumerate(others, 1):
        add = layers.Add(dtype="float32", name=f"{name}_sum_{i}")
        total = add([total, other])
    return total


def _convolve(x, kernel, bias, part, name):
    first = offsets(len(kernel))[0]
    rows, columns = (
        np.subtract(part.rows, first),
        np.subtract(part.columns, first),
    )
    same = _is_same(part.rows) and _is_same(part.columns)
    conv = layers.DepthwiseConv2D(
        (len(rows), len(columns)),
        padding="same" if same else "valid",
        dilation_rate=(_step(part.rows), _step(part.columns)),
        use_bias=bias is not None,
        name=name,
        **STOCK,
    )
    return apply(
        conv,
        x if same else _shift(x, part, name),
        kernel[np.ix_(rows, columns)][..., None],
        bias,
    )


def _step(taps):
    return taps[1] - taps[0] if len(taps) > 1 else 1


def _is_same(taps):
    """Whether "same" padding puts the first tap where it belongs."""
    return taps[0] == -((taps[-1] - taps[0]) // 2)


def _shift(x, part, name):
    """Pads and crops so that a "valid" convolution looks where it should."""
    ends = [(-taps[0], taps[-1]) for taps in (part.rows, part.columns)]
    pads = [tuple(max(0, end) for end in pair) for pair in ends]
    crops = [tuple(max(0, -end) for end in pair) for pair in ends]
    x = layers.ZeroPadding2D(pads, name=f"{name}_pad", **STOCK)(x)
    if np.any(crops):
        x = layers.Cropping2D(crops, name=f"{name}_crop", **STOCK)(x)
    return x
