"""A large depthwise convolution as a sum of small ones, exactly.

XNNPACK, which runs TFLite files on CPUs, has fast depthwise convolutions of up
to 25 taps. The k x k taps of a larger kernel are dealt out to parts, each of
which takes some of the rows and some of the columns; the parts' outputs add
up to the same sum, at the borders too, as every part sees the same zeros.
"""

import dataclasses

import numpy as np
from keras import layers

from convmixer_tf.export.construction import STOCK
from convmixer_tf.export.construction import apply

MAX_TAPS = 25


@dataclasses.dataclass(frozen=True)
class Part:
    """Some taps of a kernel: the evenly spaced `rows` x `columns`.

    Attributes:
        rows: Tuple of integers, offsets from the output's row to the input's.
        columns: Tuple of integers, likewise.
    """

    rows: tuple
    columns: tuple


def _offsets(size):
    # Where TensorFlow's "same" puts an even kernel: one more on the far side.
    return tuple(range(-((size - 1) // 2), size // 2 + 1))


def _phases(size, step):
    return [_offsets(size)[i::step] for i in range(min(step, size))]


def _runs(size, length):
    offsets = _offsets(size)
    return [offsets[i : i + length] for i in range(0, size, length)]


_ROWS_AND_COLUMNS = {
    "whole": lambda size: ([_offsets(size)], [_offsets(size)]),
    "polyphase_2": lambda size: (_phases(size, 2), _phases(size, 2)),
    "polyphase_3": lambda size: (_phases(size, 3), _phases(size, 3)),
    "rows": lambda size: (_runs(size, 1), [_offsets(size)]),
    "blocks_3x3": lambda size: (_runs(size, 3), _runs(size, 3)),
    "blocks_5x5": lambda size: (_runs(size, 5), _runs(size, 5)),
}
FORMS = tuple(_ROWS_AND_COLUMNS)


def split(size, form):
    """Deals the taps of a kernel out to parts.

    Args:
        size: Integer, the kernel's side.
        form: One of `FORMS`. `"whole"`: one part. `"polyphase_2"` and
            `"polyphase_3"`: every second or third row and column, which is a
            dilated convolution; four or nine parts. `"rows"`: each row.
            `"blocks_3x3"` and `"blocks_5x5"`: blocks of at most that many
            neighbours.

    Returns:
        Tuple of `Part`; every tap is in exactly one of them.
    """
    rows, columns = _ROWS_AND_COLUMNS[form](size)
    return tuple(Part(row, column) for row in rows for column in columns)


def depthwise(x, kernel, bias, form, name):
    """Applies a depthwise convolution with "same" padding in parts.

    Args:
        x: Symbolic tensor (batch, height, width, dim).
        kernel: Array (side, side, dim).
        bias: Array (dim,).
        form: What `split` takes.
        name: Name of the layer, or prefix of those of the parts.

    Returns:
        Symbolic tensor of the shape of `x`.
    """
    parts = split(len(kernel), form)
    if len(parts) == 1:
        return _part(x, kernel, bias, parts[0], name)
    first, *others = (
        _part(x, kernel, None if i else bias, part, f"{name}_part_{i}")
        for i, part in enumerate(parts)
    )
    for i, other in enumerate(others, 1):
        add = layers.Add(dtype="float32", name=f"{name}_sum_{i}")
        first = add([first, other])
    return first


def _part(x, kernel, bias, part, name):
    size = len(kernel)
    rows, columns = (
        np.subtract(offsets, _offsets(size)[0])
        for offsets in (part.rows, part.columns)
    )
    spaced = [_spacing(part.rows), _spacing(part.columns)]
    same = _is_same(part.rows) and _is_same(part.columns)
    if not same:
        x = _moved(x, part, name)
    conv = layers.DepthwiseConv2D(
        (len(rows), len(columns)),
        padding="same" if same else "valid",
        dilation_rate=spaced,
        use_bias=bias is not None,
        name=name,
        **STOCK,
    )
    return apply(conv, x, kernel[np.ix_(rows, columns)][..., None], bias)


def _spacing(offsets):
    return offsets[1] - offsets[0] if len(offsets) > 1 else 1


def _is_same(offsets):
    """Whether "same" padding puts the first tap at the first offset."""
    span = (len(offsets) - 1) * _spacing(offsets)
    return offsets[0] == -(span // 2)


def _moved(x, part, name):
    """Pads and crops `x` so that a "valid" convolution starts at the offset."""
    ends = [(-o[0], o[-1]) for o in (part.rows, part.columns)]
    pads = [tuple(max(0, end) for end in pair) for pair in ends]
    crops = [tuple(max(0, -end) for end in pair) for pair in ends]
    settings = {**STOCK}
    x = layers.ZeroPadding2D(pads, name=f"{name}_pad", **settings)(x)
    if np.any(crops):
        x = layers.Cropping2D(crops, name=f"{name}_crop", **settings)(x)
    return x
