"""How to compute a large depthwise convolution for each target.

From `export/results/split.json`, measured in LiteRT on one core of an x86
processor (AMD EPYC, Zen 5, AVX-512). Not measured on Arm.
"""

from convmixer_tf.export.channel_order import equal_groups
from convmixer_tf.export.depthwise_parts import phases

TARGETS = ("float", "litert", "litert_dynamic", "litert_int8")

# XNNPACK computes a depthwise convolution as one of this many taps, the next
# larger. Beyond the last it has no fast code, which costs ten times the time.
FAST_TAPS = (4, 9, 25)

# What adding up one more part costs, in taps.
ADDITION = {"litert": 3, "litert_dynamic": 3, "litert_int8": 5}

# In floating point: groups whose maps stay in the second-level cache (1 MiB),
# and the taps of which stay in the first-level cache.
LARGE_MAP = 512  # patches
WIDTH_ON_LARGE_MAPS, WIDTH = 128, 256  # channels

# In 8 bits: more groups are nearer to the model. Where neither a split pays
# for their operators nor channels of extreme scales need them, fewer, so as
# not to be slower than the model as it is.
MANY_GROUPS, FEW_GROUPS = 4, 2
FEWEST_IN_8_BITS = 16  # channels that are worth dividing


def choose_parts(target, size):
    """Chooses how to split a depthwise kernel.

    The least work wins: taps, counted as XNNPACK computes them, and additions.
    This names the fastest phases of every kernel that was measured.

    Args:
        target: One of `TARGETS`.
        size: Integer, the kernel's side.

    Returns:
        Tuple of `depthwise_parts.Part`; one, if it is left whole.
    """
    whole = phases(size, 1, 1)
    if target not in ADDITION or _taps(whole[0]) <= FAST_TAPS[-1]:
        return whole
    # Up to here every part looks both ways, as `phases` has it.
    steps = range(1, (size + 1) // 2 + 1)
    splits = (phases(size, row, column) for column in steps for row in steps)
    fast = (s for s in splits if _taps(s[0]) <= FAST_TAPS[-1])
    return min(fast, key=lambda parts: _work(parts, ADDITION[target]))


def choose_groups(target, size, grid, dim, extreme=False):
    """Chooses into which groups of channels to divide a block.

    Args:
        target: One of `TARGETS`.
        size: Integer, the side of the depthwise kernel.
        grid: (height, width) of the map, in patches; None if it is open.
        dim: Integer, the number of channels.
        extreme: Boolean, whether a few channels have far larger scales than
            the others.

    Returns:
        Tuple of integers, the numbers of channels.
    """
    splits = size**2 > FAST_TAPS[-1]
    if target == "litert_int8" and dim >= FEWEST_IN_8_BITS:
        number = MANY_GROUPS if splits or extreme else FEW_GROUPS
    elif target in ("litert", "litert_dynamic") and splits:
        large = None not in grid and grid[0] * grid[1] > LARGE_MAP
        number = -(-dim // (WIDTH_ON_LARGE_MAPS if large else WIDTH))
    else:
        number = 1
    return equal_groups(dim, number)


def _taps(part):
    return len(part.rows) * len(part.columns)


def _work(parts, addition):
    computed = (
        min(taps for taps in FAST_TAPS if taps >= _taps(part)) for part in parts
    )
    return sum(computed) + addition * len(parts)
