"""Draws the architecture of a ConvMixer, from the image to the classes.

    python recipes/draw_architecture.py --output architecture.png

The photograph is `china.jpg`, which scikit-learn ships. The sizes are those of
`--model`.

Time: a few seconds. Result: `recipes/results/architecture.png`.
"""

import launch
import matplotlib.figure
import numpy as np
import run_flags
from absl import flags
from matplotlib import patches
from sklearn.datasets import load_sample_image

from convmixer_tf import data
from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced
from convmixer_tf.weights import PUBLISHED_WEIGHTS

INK, PALE, LINE = "#1f2933", "#5b6875", "#9aa5b1"
COLOURS = {"conv": "#cfe3f7", "mix": "#ffe1b8", "norm": "#eceff3"}
ACTIVATIONS = {"gelu": "GELU", "relu": "ReLU"}
GRID = 8  # Cells that are drawn, as a picture of patches.

_MODEL = flags.DEFINE_enum(
    "model",
    "1536_20",
    [name.removeprefix("convmixer_") for name in PUBLISHED_WEIGHTS],
    "Which model's sizes to write.",
)
_OUTPUT = flags.DEFINE_string("output", "architecture.png", "PNG to write.")
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Whether to replace what is there."
)


def draw_image(axes, left, side):
    """Draws the photograph, cut into patches with gaps between them."""
    photograph = data.resize_and_center_crop(
        load_sample_image("china.jpg"), 32 * GRID, crop_fraction=1
    )
    pixels = np.uint8(photograph)
    step, gap = side / GRID, 0.006
    for row in range(GRID):
        for column in range(GRID):
            x, y = left + column * step, (GRID - 1 - row) * step - side / 2
            axes.imshow(
                pixels[
                    32 * row : 32 * row + 32, 32 * column : 32 * column + 32
                ],
                extent=(x + gap, x + step - gap, y + gap, y + step - gap),
                zorder=3,
            )


def draw_maps(axes, left, side, colour):
    """Draws a stack of feature maps, one cell for each patch."""
    for sheet in range(5, -1, -1):
        x, y = left + 0.05 * sheet, -side / 2 + 0.05 * sheet
        axes.add_patch(
            patches.Rectangle(
                (x, y), side, side, facecolor=colour, edgecolor=PALE, lw=0.7
            )
        )
    for i in range(1, GRID):
        at = i * side / GRID
        ends = (left, left + side), (-side / 2, side / 2)
        axes.plot(ends[0], [at - side / 2] * 2, color=LINE, lw=0.4)
        axes.plot([left + at] * 2, ends[1], color=LINE, lw=0.4)


def draw_box(axes, left, width, text, colour):
    """Draws a layer."""
    axes.add_patch(
        patches.FancyBboxPatch(
            (left, -0.42),
            width,
            0.84,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=colour,
            edgecolor=PALE,
            lw=0.8,
        )
    )
    axes.text(
        left + width / 2,
        0,
        text,
        ha="center",
        va="center",
        fontsize=9,
        color=INK,
        rotation=0 if width > 0.5 else 90,
    )


def draw_arrow(axes, start, end, height=0.0):
    """Draws an arrow to the right."""
    axes.annotate(
        "",
        (end, height),
        (start, height),
        arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.1},
    )


def draw_norms(axes, left, activation):
    """Draws activation and normalisation; returns where they end."""
    for name in (ACTIVATIONS[activation], "batch norm"):
        draw_box(axes, left, 0.26, name, COLOURS["norm"])
        left += 0.3
    return left - 0.04


def draw_skip(axes, start, end):
    """Draws the residual connection over what it passes by."""
    style = {"color": INK, "lw": 1.1, "solid_capstyle": "round"}
    axes.plot([start, start, end, end], [0, 0.72, 0.72, 0.14], **style)
    axes.annotate(
        "",
        (end, 0.09),
        (end, 0.3),
        arrowprops={"arrowstyle": "-|>", "color": INK},
    )
    axes.add_patch(
        patches.Circle((end, 0), 0.09, facecolor="white", edgecolor=INK, lw=1.1)
    )
    axes.text(end, -0.01, "+", ha="center", va="center", fontsize=11, color=INK)


def label(axes, x, y, text, **style):
    """Writes a small text under something."""
    style = {"fontsize": 8.5, "color": PALE, "ha": "center", **style}
    axes.text(x, y, text, va="top", **style)


def draw(axes, facts):
    """Draws the whole of it.

    Args:
        axes: Of matplotlib.
        facts: `PublishedWeights`, for the sizes.
    """
    size, patch, dim = facts.image_size, facts.patch_size, facts.dim
    grid = size // patch
    maps = f"{grid} x {grid} x {dim}"
    draw_image(axes, 0, 1.5)
    label(
        axes,
        0.75,
        -0.85,
        f"{size} x {size} pixels\nin patches of {patch} x {patch}",
    )
    draw_arrow(axes, 1.55, 1.75)
    draw_box(
        axes,
        1.78,
        0.92,
        f"patch\nembedding\n{patch} x {patch}",
        COLOURS["conv"],
    )
    end = draw_norms(axes, 2.74, facts.activation)
    label(axes, 2.5, -0.52, "mixes the pixels\nof each patch")
    draw_arrow(axes, end, end + 0.2)
    draw_maps(axes, end + 0.24, 0.8, "#ffffff")
    label(axes, end + 0.76, -0.52, maps)
    draw_arrow(axes, end + 1.34, end + 1.86)

    left = end + 1.66
    axes.add_patch(
        patches.FancyBboxPatch(
            (left - 0.12, -1.02),
            4.16,
            1.98,
            boxstyle="round,pad=0,rounding_size=0.1",
            facecolor="none",
            edgecolor=PALE,
            lw=1,
            linestyle=(0, (4, 3)),
        )
    )
    label(
        axes,
        left + 3.92,
        0.9,
        f"{facts.depth} times",
        ha="right",
        fontsize=10,
        color=INK,
    )
    k = facts.kernel_size
    draw_box(axes, left + 0.2, 1.0, f"depthwise\n{k} x {k}", COLOURS["mix"])
    after = draw_norms(axes, left + 1.24, facts.activation)
    draw_skip(axes, left + 0.08, after + 0.2)
    axes.plot([after, after + 0.11], [0, 0], color=INK, lw=1.1)
    label(axes, left + 0.9, -0.52, "mixes places,\neach channel for itself")
    draw_arrow(axes, after + 0.29, after + 0.5)
    draw_box(axes, after + 0.5, 1.0, "pointwise\n1 x 1", COLOURS["conv"])
    last = draw_norms(axes, after + 1.54, facts.activation)
    label(axes, after + 1.2, -0.52, "mixes channels,\neach place for itself")
    draw_arrow(axes, last, last + 0.4)

    left = last + 0.44
    draw_maps(axes, left, 0.8, "#ffffff")
    label(axes, left + 0.52, -0.52, f"{maps},\nas before")
    draw_arrow(axes, left + 1.1, left + 1.3)
    draw_box(
        axes, left + 1.32, 0.8, "average\nof all\npatches", COLOURS["norm"]
    )
    draw_arrow(axes, left + 2.12, left + 2.3)
    draw_box(axes, left + 2.32, 0.62, "linear", COLOURS["conv"])
    label(axes, left + 2.63, -0.52, f"{facts.classes:,} classes")
    axes.set(xlim=(-0.05, left + 3.0), ylim=(-1.25, 1.1), aspect="equal")
    axes.axis("off")


def main(argv):
    """Draws as the flags say."""
    run_flags.begin(argv)
    path = _OUTPUT.value
    check_destination(path, (".png",), _OVERWRITE.value)
    figure = matplotlib.figure.Figure(figsize=(14, 2.75), layout="constrained")
    draw(figure.subplots(), PUBLISHED_WEIGHTS[f"convmixer_{_MODEL.value}"])
    with replaced(path) as unfinished:
        figure.savefig(unfinished, dpi=130, facecolor="white")
    print(path)


if __name__ == "__main__":
    launch.run(main)
