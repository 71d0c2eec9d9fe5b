"""Pictures of a ConvMixer's kernels."""

from collections.abc import Sequence

import keras
import numpy as np

from convmixer_tf.analysis.parts import find_body
from convmixer_tf.analysis.pictures import hide_ticks
from convmixer_tf.analysis.pictures import new_picture
from convmixer_tf.analysis.pictures import tile
from convmixer_tf.files import PathLike
from convmixer_tf.validation import check_positive_integer


def save_patch_filters(
    path: PathLike,
    model: keras.Model,
    *,
    columns: int = 16,
    overwrite: bool = False,
) -> None:
    """Draws the kernels of the patch embedding, the strongest first.

    Gray is 0, and each kernel has its own scale. Kernels with three input
    channels are in color; for others, the mean over channels is shown.

    Args:
        path: Path of the PNG to write.
        model: A ConvMixer.
        columns: Integer, how many kernels are in a row.
        overwrite: Boolean, whether an existing file may be replaced.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`.
        ImportError: If matplotlib is missing.
        ValueError: If `model` is not a ConvMixer, or `columns` is not a
            positive integer.
    """
    check_positive_integer("columns", columns)
    kernel = _array(find_body(model)[0].conv.kernel)
    if kernel.shape[2] != 3:
        kernel = kernel.mean(2, keepdims=True).repeat(3, 2)
    kernels = _strongest(kernel.transpose(3, 0, 1, 2))
    page = tile(0.5 + _scaled(kernels) / 2, columns, fill=1.0)
    height, width = page.shape[:2]
    with new_picture(path, (8, 8 * height / width + 0.4), overwrite) as figure:
        axes = figure.subplots()
        axes.imshow(page, interpolation="nearest")
        hide_ticks(axes)
        side = kernel.shape[0]
        axes.set_title(
            f"{len(kernels)} patch-embedding kernels of {side} x {side} "
            "pixels, strongest first",
            fontsize=10,
        )


def save_depthwise_filters(
    path: PathLike,
    model: keras.Model,
    blocks: Sequence[int] | None = None,
    *,
    columns: int = 24,
    rows: int = 2,
    overwrite: bool = False,
) -> None:
    """Draws the strongest depthwise kernels of each block.

    Red is positive, blue negative, white 0. Each kernel has its own scale.

    Args:
        path: Path of the PNG to write.
        model: A ConvMixer.
        blocks: List of integers, the blocks, counted from 0. Defaults to all
            blocks, or to eight evenly spaced ones.
        columns: Integer, how many kernels are in a row.
        rows: Integer, the maximum number of rows per block.
        overwrite: Boolean, whether an existing file may be replaced.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`.
        ImportError: If matplotlib is missing.
        ValueError: If `model` is not a ConvMixer or has no such block, or if a
            number is not a positive integer.
    """
    check_positive_integer("columns", columns)
    check_positive_integer("rows", rows)
    found = find_body(model)[1:]
    if blocks is None:
        spread = np.linspace(0, len(found) - 1, min(len(found), 8))
        blocks = spread.round().astype(int).tolist()
    if not blocks or not set(blocks) <= set(range(len(found))):
        raise ValueError(
            f"Argument `blocks` must list numbers from 0 to {len(found) - 1}. "
            f"Received: blocks={blocks!r}"
        )
    pages = {}
    for block in blocks:
        kernel = _array(found[block].depthwise.kernel)[..., 0]
        kernels = _strongest(kernel.transpose(2, 0, 1))[: columns * rows]
        pages[block] = tile(_scaled(kernels), columns, fill=np.nan)
    height, width = next(iter(pages.values())).shape
    size = (10, (10 * height / width + 0.1) * len(pages) + 0.3)
    with new_picture(path, size, overwrite) as figure:
        panels = figure.subplots(len(pages), squeeze=False)[:, 0]
        for axes, (block, page) in zip(panels, pages.items(), strict=True):
            axes.imshow(
                page, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest"
            )
            hide_ticks(axes)
            axes.set_ylabel(f"block {block}", fontsize=9)
        side = len(kernel)
        panels[0].set_title(
            f"Depthwise kernels of {side} x {side} patches, the strongest of "
            "each block",
            fontsize=10,
        )


def _array(variable):
    return np.float32(keras.ops.convert_to_numpy(variable))


def _strongest(kernels):
    """Sorts kernels along the first axis by norm, in descending order."""
    norms = np.linalg.norm(kernels.reshape(len(kernels), -1), axis=1)
    return kernels[np.argsort(-norms, kind="stable")]


def _scaled(kernels):
    """Scales each kernel along the first axis to a maximum of 1."""
    largest = np.abs(kernels).max(tuple(range(1, kernels.ndim)), keepdims=True)
    return kernels / np.maximum(largest, 1e-12)
