"""Receptive fields of the blocks."""

import keras
import numpy as np

from convmixer_tf.analysis.parts import find_body
from convmixer_tf.analysis.pictures import hide_ticks
from convmixer_tf.analysis.pictures import new_picture
from convmixer_tf.files import PathLike


def receptive_fields(model: keras.Model) -> dict[str, int]:
    """Computes the side of each layer's receptive field.

    This is the theoretical receptive field: pixels outside of this square
    cannot change a value. The patch embedding sees one patch. A depthwise
    kernel of size k adds k - 1 patches. The field may extend into the padding.

    Args:
        model: A ConvMixer.

    Returns:
        Dictionary from the names `patch_embed`, `block_0` and so on to
        integers, in pixels.

    Raises:
        ValueError: If `model` is not a ConvMixer.

    Example:

    ```python
    receptive_fields(ConvMixer1024_20(weights=None))["block_1"]  # 238
    ```
    """
    size = find_body(model)[0].patch_size
    return {
        name: (back + 1 + ahead) * size
        for name, (back, ahead) in reaches(model).items()
    }


def reaches(model):
    """Computes the reach of each layer's patches, in patches.

    Args:
        model: A ConvMixer.

    Returns:
        Dictionary from names, as in `receptive_fields`, to two integers: the
        number of visible patches up and left of a patch, and down and right. An
        even depthwise kernel reaches one further down and right.

    Raises:
        ValueError: If `model` is not a ConvMixer.
    """
    embed, *blocks = find_body(model)
    found = {embed.name: (0, 0)}
    back = ahead = 0
    for block in blocks:
        back += (block.kernel_size - 1) // 2
        ahead += block.kernel_size // 2
        found[block.name] = back, ahead
    return found


def save_receptive_fields(
    path: PathLike,
    model: keras.Model,
    image: np.ndarray,
    *,
    most: int = 8,
    overwrite: bool = False,
) -> None:
    """Draws the receptive field of each block around an image's center.

    The field is that of the central patch. Even kernels reach further down and
    right than up and left, which shifts the squares.

    Args:
        path: Path of the PNG to write.
        model: A ConvMixer.
        image: Array of pixels in [0, 255], (height, width, 3) or (height,
            width, 1).
        most: Integer, the maximum number of layers. If there are more, evenly
            spaced layers are drawn, including the first and the last.
        overwrite: Boolean, whether an existing file may be replaced.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`.
        ImportError: If matplotlib is missing.
        ValueError: If `model` is not a ConvMixer.
    """
    size = find_body(model)[0].patch_size
    fields = list(reaches(model).items())
    chosen = np.linspace(0, len(fields) - 1, min(len(fields), most)).round()
    height, width = image.shape[:2]
    farthest = (2 * fields[-1][1][1] + 1) * size
    reach = 0.52 * max(height, width, farthest)
    with new_picture(path, (6.4, 4.8), overwrite) as figure:
        from matplotlib import colormaps
        from matplotlib.patches import Rectangle

        axes = figure.subplots()
        axes.imshow(
            np.uint8(image),
            cmap="gray",
            extent=(-width / 2, width / 2, height / 2, -height / 2),
            interpolation="nearest",
        )
        colors = colormaps["plasma"](np.linspace(0, 0.9, len(chosen)))
        for color, index in zip(colors, chosen.astype(int), strict=True):
            name, (back, ahead) = fields[index]
            corner, side = -(back + 0.5) * size, (back + 1 + ahead) * size
            square = Rectangle(
                (corner, corner),
                side,
                side,
                fill=False,
                edgecolor=color,
                linewidth=2.5,
                label=f"{name.replace('_', ' ')}: {side} pixels",
            )
            axes.add_patch(square)
        axes.set(xlim=(-reach, reach), ylim=(reach, -reach), aspect="equal")
        hide_ticks(axes)
        figure.legend(loc="outside right center", frameon=False)
