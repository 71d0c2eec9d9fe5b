"""Splits large depthwise convolutions for each target.

The taps of a kernel are divided among several small, dilated kernels. The sum
of their outputs equals the output of the whole kernel. This also holds at the
borders because all parts see the same zero padding.

The rule is from `export/results/split.json`, measured in LiteRT on one core of
an x86 processor (AMD EPYC, Zen 5, AVX-512). Not measured on Arm.
"""

import dataclasses

TARGETS = ("float", "litert", "litert_dynamic", "litert_int8")

# XNNPACK rounds the number of taps of a depthwise convolution up to one of
# these. Above the last one it has no fast code and takes ten times as long.
FAST_TAPS = (4, 9, 25)

# Cost of adding one more part, in taps.
ADDITION = {"litert": 3, "litert_dynamic": 3, "litert_int8": 5}

# In floating point: groups whose maps fit the second-level cache (1 MiB) and
# whose taps fit the first-level cache.
LARGE_MAP = 512  # patches
WIDTH_ON_LARGE_MAPS, WIDTH = 128, 256  # channels

# In 8 bits: more groups are more accurate. There are fewer groups if neither a
# split compensates for their operators nor channels with extreme scales need
# them, so that the result is not slower than the original model.
MAX_GROUPS_IN_8_BITS, MIN_GROUPS_IN_8_BITS = 4, 2
MIN_DIM_IN_8_BITS = 16  # Minimum number of channels to split.


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a kernel's taps: evenly spaced `rows` x `columns`.

    Attributes:
        rows: Tuple of integers, offsets from the output's row to the input's.
        columns: Tuple of integers, offsets of the columns.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]


def offsets(size):
    """Returns the offsets of a kernel's taps with "same" padding.

    Args:
        size: Integer, the kernel's side.

    Returns:
        Tuple of `size` consecutive integers around 0. As in TensorFlow, an even
        kernel reaches one further ahead than back.
    """
    return tuple(range(-((size - 1) // 2), size // 2 + 1))


def split_taps(size, row_step, column_step):
    """Splits the taps of a kernel into interleaved parts.

    Every part is a dilated convolution with offsets on both sides of 0.

    Args:
        size: Integer, the kernel's side.
        row_step: Integer, the distance of a part's rows, at most (size + 1) //
            2.
        column_step: Integer, the distance of its columns, with the same limit.

    Returns:
        Tuple of `row_step * column_step` `Part`. Every tap is in exactly one.
    """
    taps = offsets(size)
    return tuple(
        Part(taps[row::row_step], taps[column::column_step])
        for row in range(row_step)
        for column in range(column_step)
    )


def choose_parts(target, size):
    """Chooses how to split a depthwise kernel.

    It minimizes the work: taps, as XNNPACK rounds them, and additions. This
    gives the fastest split for every kernel that was measured.

    Args:
        target: One of `TARGETS`.
        size: Integer, the kernel's side.

    Returns:
        Tuple of `Part`. It has one element if the kernel is not split.
    """
    if target not in ADDITION or size**2 <= FAST_TAPS[-1]:
        return split_taps(size, 1, 1)
    steps = range(1, (size + 1) // 2 + 1)
    splits = (
        split_taps(size, row, column) for column in steps for row in steps
    )
    fast = (parts for parts in splits if _num_taps(parts[0]) <= FAST_TAPS[-1])
    return min(fast, key=lambda parts: _work(parts, ADDITION[target]))


def choose_groups(target, size, grid, dim, extreme=False):
    """Chooses the groups of channels of a block.

    Args:
        target: One of `TARGETS`.
        size: Integer, the side of the depthwise kernel.
        grid: (height, width) of the map, in patches; None if unknown.
        dim: Integer, the number of channels.
        extreme: Boolean, whether a few channels have far larger scales than the
            others.

    Returns:
        Tuple of integers, the numbers of channels.
    """
    splits = size**2 > FAST_TAPS[-1]
    number = 1
    if target == "litert_int8" and dim >= MIN_DIM_IN_8_BITS:
        more = splits or extreme
        number = MAX_GROUPS_IN_8_BITS if more else MIN_GROUPS_IN_8_BITS
    elif target in ("litert", "litert_dynamic") and splits:
        large = None not in grid and grid[0] * grid[1] > LARGE_MAP
        number = -(-dim // (WIDTH_ON_LARGE_MAPS if large else WIDTH))
    ends = [dim * (i + 1) // number for i in range(number)]
    return tuple(
        end - start for start, end in zip([0, *ends], ends, strict=False)
    )


def _num_taps(part):
    return len(part.rows) * len(part.columns)


def _work(parts, addition):
    computed = (
        min(taps for taps in FAST_TAPS if taps >= _num_taps(part))
        for part in parts
    )
    return sum(computed) + addition * len(parts)
