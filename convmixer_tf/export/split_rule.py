"""How to compute a large depthwise convolution for each target."""

from convmixer_tf.export.depthwise_split import MAX_TAPS

TARGETS = ("float", "litert", "litert_dynamic", "litert_int8")


def choose_split(target, side, grid, dim):
    """Chooses how to compute a depthwise convolution.

    Args:
        target: One of `TARGETS`.
        side: Integer, the kernel's side.
        grid: (height, width) of the map, in patches; None if it is open.
        dim: Integer, the number of channels.

    Returns:
        What `depthwise_split.split` takes as form, and a tuple of the numbers
        of channels in the groups to work in.
    """
    if target in ("float", "litert_dynamic") or side**2 <= MAX_TAPS:
        return "whole", (dim,)
    if target == "litert_int8":
        return "polyphase_2", (dim,)
    return "polyphase_3", (dim,)
