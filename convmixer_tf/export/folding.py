"""ConvMixer without its normalizations: the same function, by exact algebra.

A batch normalization in inference is s * x + t, for each channel. In

    x = s1 * a + t1                    a: what the layer before activated
    h = act(depthwise(x) + b)
    z = x + (s2 * h + t2)
    p = act(W z + c)

t2 goes into the pointwise bias, c + W t2. Where s2 is of a sane size, the
block computes x / s2 and z / s2 instead: the depthwise kernel times s2 and
W times s2 make up for it, and s2 * h becomes h. Zero padding is the same zero
before and after a scale. It is not so for a shift: t1 can't go through the
depthwise convolution into its bias, which would be wrong at the borders.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from convmixer_tf.export.anatomy import Affine
from convmixer_tf.export.anatomy import Classifier

# Between these, no weight of a file in float16 (normal from 6e-5 to 6e4)
# leaves its range because of the division.
SANE_SCALES = (2**-7, 2**7)


@dataclasses.dataclass(frozen=True)
class FoldedBlock:
    """A block as it is computed.

    Attributes:
        affine: `Affine`, what remains to do with the block's input.
        depthwise_kernel: float64 array (rows, columns, dim).
        depthwise_bias: float64 array (dim,).
        branch_scale: float64 array (dim,), what the activated depthwise
            convolution is multiplied by before it is added, or None.
        pointwise_kernel: float64 array (dim, dim).
        pointwise_bias: float64 array (dim,).
        activation: Function of a tensor, of both convolutions.
    """

    affine: Affine
    depthwise_kernel: np.ndarray
    depthwise_bias: np.ndarray
    branch_scale: np.ndarray | None
    pointwise_kernel: np.ndarray
    pointwise_bias: np.ndarray
    activation: Callable


@dataclasses.dataclass(frozen=True)
class Folded:
    """A ConvMixer as it is computed.

    Attributes:
        stem_kernel: float64 array (rows, columns, channels, dim).
        stem_bias: float64 array (dim,).
        activation: Function of a tensor, of the stem.
        blocks: Tuple of `FoldedBlock`.
        affine: `Affine`, what remains to do with the last block's output, or
            None.
        classifier: `Classifier` or None.
    """

    stem_kernel: np.ndarray
    stem_bias: np.ndarray
    activation: Callable
    blocks: tuple
    affine: Affine | None
    classifier: Classifier | None


def fold(anatomy, divide, fold_last):
    """Folds all normalizations that can be, and the preprocessing.

    Args:
        anatomy: An `Anatomy`.
        divide: Boolean, whether blocks may compute their input divided by
            the scale of the depthwise normalization. It saves a
            multiplication; rounding to 8 bits is the worse for it.
        fold_last: Boolean, whether the last normalization may go into the
            classifier. After maximum pooling it can't.

    Returns:
        A `Folded`.
    """
    kernel, bias = _fold_preprocessing(anatomy.stem, anatomy.preprocessing)
    blocks, norm = [], anatomy.stem.norm
    for block in anatomy.blocks:
        blocks.append(_fold_block(block, norm, divide))
        norm = block.pointwise.norm
    classifier = anatomy.classifier
    if classifier and fold_last and anatomy.pooling == "avg":
        # Pooling is a mean, and the mean of s * x + t is s * mean + t.
        classifier = Classifier(
            norm.scale[:, None] * classifier.kernel,
            classifier.bias + norm.shift @ classifier.kernel,
            classifier.activation,
        )
        norm = None
    return Folded(
        stem_kernel=kernel,
        stem_bias=bias,
        activation=anatomy.stem.activation,
        blocks=tuple(blocks),
        affine=norm,
        classifier=classifier,
    )


def is_sane(scale):
    """Whether all channels may be divided by their `scale`, float64 (dim,)."""
    low, high = SANE_SCALES
    return bool(np.all((low <= np.abs(scale)) & (np.abs(scale) <= high)))


def _fold_preprocessing(stem, preprocessing):
    if preprocessing is None:
        return stem.kernel, stem.bias
    # Exact at the borders too: patches are not padded.
    shift = np.einsum("rcio,i->o", stem.kernel, preprocessing.shift)
    return (
        stem.kernel * preprocessing.scale[:, None],
        stem.bias + shift,
    )


def _fold_block(block, norm, divide):
    depthwise, pointwise = block.depthwise, block.pointwise
    scale, shift = depthwise.norm.scale, depthwise.norm.shift
    weights = pointwise.kernel[0, 0]
    if divide and is_sane(scale):
        divisor, branch_scale = scale, None
    else:
        divisor, branch_scale = np.ones_like(scale), scale
    return FoldedBlock(
        affine=Affine(norm.scale / divisor, norm.shift / divisor),
        depthwise_kernel=depthwise.kernel * divisor,
        depthwise_bias=depthwise.bias,
        branch_scale=branch_scale,
        pointwise_kernel=weights * divisor[:, None],
        pointwise_bias=pointwise.bias + shift @ weights,
        activation=depthwise.activation,
    )
