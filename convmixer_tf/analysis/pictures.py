"""Pictures for people, drawn by matplotlib."""

import contextlib

import numpy as np

from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced

# Least side of an enlarged image, and what is between two, in pixels.
_TILE = 36
_GAP = 5


@contextlib.contextmanager
def new_picture(path, size, overwrite=False):
    """Opens a figure, which is written as a PNG once it is drawn.

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
    """Leaves pixels unnumbered, and a picture without a frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def tile(images, columns, fill):
    """Lays equal images out in rows, enlarged, with narrow gaps.

    Args:
        images: Array of shape (images, height, width, ...).
        columns: Integer, the most images in a row.
        fill: What is between them, and in place of those that are missing.

    Returns:
        Array of shape (height, width, ...), in which a pixel has become a
        square of several.
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
