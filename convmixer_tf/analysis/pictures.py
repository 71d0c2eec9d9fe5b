"""Helpers for pictures with matplotlib."""

import contextlib

import numpy as np

from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced

# Minimum side of an enlarged image, and the gap between two, in pixels.
_TILE = 36
_GAP = 5


@contextlib.contextmanager
def new_picture(path, size, overwrite=False):
    """Opens a figure and writes it as a PNG after drawing.

    Args:
        path: Path of the PNG to write.
        size: Tuple (width, height), in inches of 120 pixels.
        overwrite: Boolean, whether an existing file may be replaced.

    Yields:
        A `matplotlib.figure.Figure`.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`.
        FileNotFoundError: If its directory doesn't exist.
        ImportError: If matplotlib is missing.
        ValueError: If `path` doesn't end in .png.
    """
    check_destination(path, (".png",), overwrite)
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib. "
            "Install it with: pip install convmixer_tf[train]"
        ) from error
    figure = Figure(figsize=size, layout="constrained")
    yield figure
    with replaced(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=120)


def hide_ticks(axes):
    """Hides the ticks and the frame of a picture."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def tile(images, columns, fill):
    """Arranges images of equal size in rows, enlarged, with narrow gaps.

    Args:
        images: Array of shape (images, height, width, ...).
        columns: Integer, the maximum number of images in a row.
        fill: Value of the gaps and of missing images.

    Returns:
        Array of shape (height, width, ...), in which each pixel is a square of
        several pixels.
    """
    scale = -(-_TILE // images.shape[1])
    images = images.repeat(scale, 1).repeat(scale, 2)
    count, height, width, *rest = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    shape = (rows * columns, height + _GAP, width + _GAP, *rest)
    cells = np.full(shape, fill, np.float32)
    cells[:count, :-_GAP, :-_GAP] = images
    cells = cells.reshape(rows, columns, *shape[1:]).swapaxes(1, 2)
    page = cells.reshape(rows * shape[1], columns * shape[2], *rest)
    return page[:-_GAP, :-_GAP]
