"""Feature maps of each block."""

import numbers
from collections.abc import Sequence

import keras
import numpy as np

from convmixer_tf.analysis.parts import find_body
from convmixer_tf.analysis.pictures import hide_ticks
from convmixer_tf.analysis.pictures import new_picture
from convmixer_tf.files import PathLike
from convmixer_tf.validation import check_positive_integer


def feature_extractor(
    model: keras.Model, blocks: Sequence[int] | None = None
) -> keras.Model:
    """Builds a model that returns feature maps of a ConvMixer.

    All feature maps of a ConvMixer have the same height, width and number of
    channels, so they can be added or concatenated without resizing.

    Args:
        model: A ConvMixer, with or without classifier.
        blocks: A block or a list of blocks. Each one is an integer, counted
            from 0 or, with negative numbers, from the end; or a name, such as
            `"block_0"` or `"patch_embed"`. Defaults to all blocks, without
            `patch_embed`.

    Returns:
        A `keras.Model` with the same layers and weights. It takes the same
        input as `model` and returns a dictionary from names to feature maps,
        (batch, height, width, dim), in patches; for `"channels_first"`, (batch,
        dim, height, width). Its attribute `feature_info` is for detectors and
        segmenters: a dictionary from the names to `"channels"` and `"stride"`,
        in pixels.

    Raises:
        ValueError: If `model` is not a ConvMixer or has no such block.

    Example:

    ```python
    extractor = feature_extractor(ConvMixer768_32(weights=None), blocks=[7, -1])
    extractor(np.zeros((1, 224, 224, 3)))["block_7"].shape  # (1, 32, 32, 768)
    ```
    """
    embed, *found = find_body(model)
    by_name = {layer.name: layer for layer in (embed, *found)}
    if blocks is None:
        blocks = range(len(found))
    elif isinstance(blocks, str) or not np.iterable(blocks):
        blocks = [blocks]
    outputs = {}
    for block in blocks:
        if isinstance(block, numbers.Integral) and -len(found) <= block < len(
            found
        ):
            block = found[block].name
        if block not in by_name:
            raise ValueError(
                "Argument `blocks` must list numbers of blocks, from "
                f"{-len(found)} to {len(found) - 1}, or names: "
                f"{', '.join(by_name)}. Received: {block!r} in {blocks!r}"
            )
        outputs[block] = by_name[block].output
    if not outputs:
        raise ValueError(
            "Argument `blocks` must list at least one block. "
            f"Received: blocks={blocks!r}"
        )
    extractor = keras.Model(model.input, outputs, name=f"{model.name}_features")
    extractor.feature_info = {
        name: {"channels": embed.dim, "stride": embed.patch_size}
        for name in outputs
    }
    return extractor


def save_feature_maps(
    path: PathLike,
    image: np.ndarray,
    maps: dict[str, np.ndarray],
    *,
    columns: int = 8,
    overwrite: bool = False,
) -> None:
    """Draws the feature maps of one image, with a row for each block.

    A row shows the channels that vary most over the image, in descending order.
    The colors range from the smallest value, dark, to the largest.

    Args:
        path: Path of the PNG to write.
        image: Array of pixels in [0, 255], (height, width, 3) or (height,
            width, 1).
        maps: Dictionary from names to feature maps of that image, (height,
            width, dim), in patches.
        columns: Integer, the maximum number of channels in a row.
        overwrite: Boolean, whether an existing file may be replaced.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`.
        ImportError: If matplotlib is missing.
        ValueError: If an argument is out of range.
    """
    check_positive_integer("columns", columns)
    maps = {
        name: np.asarray(values, "float32") for name, values in maps.items()
    }
    for name, values in maps.items():
        if values.ndim != 3:
            raise ValueError(
                "Argument `maps` must have maps of one image, (height, width, "
                f"dim). Received: {name!r} of shape {values.shape}"
            )
    rows = len(maps)
    columns = min(columns, *(values.shape[-1] for values in maps.values()))
    size = (1.25 * (columns + 2), 1.25 * max(rows, 2) + 0.3)
    with new_picture(path, size, overwrite) as figure:
        grid = figure.add_gridspec(rows, columns + 2)
        shown = figure.add_subplot(grid[:, :2])
        shown.imshow(np.uint8(image), cmap="gray", vmin=0, vmax=255)
        hide_ticks(shown)
        for row, (name, values) in enumerate(maps.items()):
            order = np.argsort(-values.var((0, 1)), kind="stable")
            for column, channel in enumerate(order[:columns]):
                axes = figure.add_subplot(grid[row, column + 2])
                axes.imshow(values[..., channel], interpolation="nearest")
                hide_ticks(axes)
                axes.set_title(f"channel {channel}", fontsize=6, pad=2)
                if column == 0:
                    axes.set_ylabel(name.replace("_", " "), fontsize=9)
