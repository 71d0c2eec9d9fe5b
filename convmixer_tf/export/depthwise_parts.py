"""The taps of a depthwise kernel, dealt out to several small kernels.

The parts' outputs add up to the whole kernel's, at the borders too: beyond
them every part sees zeros, as the whole kernel does.
"""

import dataclasses


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


def dealt(size, step):
    """Deals the taps along one side out like cards.

    Args:
        size: Integer, the kernel's side.
        step: Integer, from one tap of a hand to its next.

    Returns:
        List of `step` tuples of offsets; fewer, if the kernel has fewer taps.
    """
    return [offsets(size)[i::step] for i in range(min(step, size))]


def phases(size, row_step, column_step):
    """Deals the taps out like cards: a part has each n-th row and column.

    Every part is a dilated convolution. As long as no step is over half the
    side, it looks both ways from 0, and needs padding at most; beyond that it
    needs a shifted copy of its input.

    Args:
        size: Integer, the kernel's side, or (rows, columns).
        row_step: Integer, from one row of a part to its next.
        column_step: Integer, likewise.

    Returns:
        Tuple of `Part`; every tap is in exactly one of them.
    """
    rows, columns = (size, size) if isinstance(size, int) else size
    return tuple(
        Part(row, column)
        for row in dealt(rows, row_step)
        for column in dealt(columns, column_step)
    )
