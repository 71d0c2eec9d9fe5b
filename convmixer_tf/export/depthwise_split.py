"""A large depthwise convolution as a sum of small ones, exactly.

The k x k taps of a kernel are dealt out to parts, each of which takes some of
the rows and some of the columns. The parts' outputs add up to the same sum, at
the borders too: beyond them every part sees zeros, as the whole kernel does.
"""

import dataclasses

import numpy as np
from keras import layers

from convmixer_tf.export.construction import STOCK
from convmixer_tf.export.construction import apply


@dataclasses.dataclass(frozen=True)
class Part:
    """Some taps of a kernel: the evenly spaced `rows` x `columns`.

    Attributes:
        rows: Tuple of integers, offsets from the output's row to the input's.
        columns: Tuple of integers, likewise.
    """

    rows: tuple
    columns: tuple


def offsets(size):
    """Gives where the taps of a kernel with "same" padding look.

    Args:
        size: Integer, the kernel's side.

    Returns:
        Tuple of `size` consecutive integers around 0. An even kernel looks
        one further ahead than back, as in TensorFlow.
    """
    return tuple(range(-((size - 1) // 2), size // 2 + 1))


def phases(size, row_step, column_step):
    """Deals the taps out like cards: a part has each n-th row and column.

    Every part is a dilated convolution. As long as no step is over half the
    side, it looks both ways from 0, and needs padding at most; beyond that it
    needs a shifted copy of its input.

    Args:
        size: Integer, the kernel's side.
        row_step: Integer, from one row of a part to its next.
        column_step: Integer, likewise.

    Returns:
        Tuple of `Part`; every tap is in exactly one of them.
    """
    rows, columns = (
        [offsets(size)[i::step] for i in range(min(step, size))]
        for step in (row_step, column_step)
    )
    return tuple(Part(row, column) for row in rows for column in columns)


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
