"""Channels in groups, and in an order, that 8 bits can tell apart.

In 8 bits all channels of a tensor share one step, which the widest of them
sets. So groups of channels get tensors of their own, with steps of their own.

A channel that hardly ever changes has a normalization that multiplies it by up
to 1 / sqrt(1e-5) = 316, and with it the error of a step that suits its lively
neighbors. Where there are such channels, all are sorted by that factor, so
that groups are of a kind. Channels have no meaning by their number, but for
the last ones of a model without classifier: this is exact.
"""

import dataclasses

import numpy as np

from convmixer_tf.export.anatomy import Affine
from convmixer_tf.export.anatomy import Block

# Times the median: the scale of a channel that hardly ever changes.
EXTREME = 16


def equal_groups(dim, number):
    """Divides channels into groups of equal sizes, or nearly so.

    Args:
        dim: Integer, the number of channels.
        number: Integer, the number of groups, at most `dim`.

    Returns:
        Tuple of `number` integers.
    """
    return tuple(
        dim * (i + 1) // number - dim * i // number for i in range(number)
    )


def is_extreme(scale):
    """Whether a few channels have far larger scales, float64 (dim,)."""
    scale = np.abs(scale)
    return bool(scale.max() > EXTREME * np.median(scale))


def sort_channels(anatomy):
    """Sorts channels by the scales of their normalizations, where needed.

    A block's channels are sorted by the normalization before the block or by
    that in its branch, whichever is extreme; if both are, into two halves by
    the one and each half by the other. What a classifier takes is sorted too;
    what a model without one returns is not.

    Args:
        anatomy: An `Anatomy`.

    Returns:
        An `Anatomy` of the same function.
    """
    convolutions = [
        anatomy.stem,
        *(block.pointwise for block in anatomy.blocks),
    ]
    branches = []
    for i, block in enumerate(anatomy.blocks):
        order = _order(convolutions[i].norm.scale, block.depthwise.norm.scale)
        convolutions[i] = _reorder_outputs(convolutions[i], order)
        branches.append(_reorder_outputs(block.depthwise, order))
        pointwise = convolutions[i + 1]
        convolutions[i + 1] = dataclasses.replace(
            pointwise, kernel=pointwise.kernel[:, :, order]
        )
    classifier = anatomy.classifier
    if classifier:
        scale = convolutions[-1].norm.scale
        order = _order(scale)
        convolutions[-1] = _reorder_outputs(convolutions[-1], order)
        classifier = dataclasses.replace(
            classifier, kernel=classifier.kernel[order]
        )
    return dataclasses.replace(
        anatomy,
        stem=convolutions[0],
        blocks=tuple(map(Block, branches, convolutions[1:])),
        classifier=classifier,
    )


def _order(*scales):
    parts = [np.arange(len(scales[0]))]
    for scale in filter(is_extreme, scales):
        parts = [part[np.argsort(np.abs(scale[part]))] for part in parts]
        parts = [half for part in parts for half in np.array_split(part, 2)]
    return np.concatenate(parts)


def _reorder_outputs(convolution, order):
    norm = convolution.norm
    return dataclasses.replace(
        convolution,
        kernel=convolution.kernel[..., order],
        bias=convolution.bias[order],
        norm=Affine(norm.scale[order], norm.shift[order]),
    )
