"""Channels in an order, and in groups, that 8 bits can tell apart.

In 8 bits all channels of a tensor share one step. A channel that hardly ever
changes has a normalisation that multiplies it by up to 1 / sqrt(1e-5) = 316,
and with it the step that it has from its lively neighbours. So channels of
similar scales get tensors of their own: a block's channels are sorted into
quarters, by the scale of the normalisation before the block and by that in its
branch. Names of channels mean nothing: this is exact.
"""

import dataclasses

import numpy as np

from convmixer_tf.export.anatomy import Affine
from convmixer_tf.export.anatomy import Block

FEWEST = 16  # channels that are worth dividing


def quarters(dim):
    """Gives the sizes of the groups that `sort_channels` sorts into.

    Args:
        dim: Integer, the number of channels.

    Returns:
        Tuple of four integers, or of one, `dim`, if that is below 16.
    """
    if dim < FEWEST:
        return (dim,)
    return tuple(
        len(quarter)
        for half in np.array_split(np.arange(dim), 2)
        for quarter in np.array_split(half, 2)
    )


def sort_channels(anatomy):
    """Sorts the channels of each block's input and branch into quarters.

    The first half has the smaller scales before the block, and of each half
    the first quarter has the smaller scales in the branch. What a classifier
    takes is sorted too; what a model without one returns is not.

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
        order = _order(scale, scale)
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


def _order(before, branch):
    halves = np.array_split(np.argsort(np.abs(before)), 2)
    return np.concatenate(
        [half[np.argsort(np.abs(branch[half]))] for half in halves]
    )


def _reorder_outputs(convolution, order):
    norm = convolution.norm
    return dataclasses.replace(
        convolution,
        kernel=convolution.kernel[..., order],
        bias=convolution.bias[order],
        norm=Affine(norm.scale[order], norm.shift[order]),
    )
