"""A picture of what each stage of an augmentation does to images."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from convmixer_tf.data.training import train_batches
from convmixer_tf.files import PathLike
from convmixer_tf.validation import check_positive_integer

if TYPE_CHECKING:
    from convmixer_tf.data.augmentation import Augmentation
    from convmixer_tf.data.datasets import ImageList
    from convmixer_tf.data.records import ImageRecords


def stages(augmentation):
    """Splits an augmentation into stages that build on each other.

    Args:
        augmentation: An `Augmentation`.

    Returns:
        Dictionary from the name of a stage to an `Augmentation` that ends with
        it. The random numbers of a stage do not depend on later stages.
    """
    fields = ("rand_augment", "color_jitter", "mixing", "erasing", "keras_cv")
    current = dataclasses.replace(augmentation, **dict.fromkeys(fields))
    result = {"crop and flip": current}
    for field in fields:
        if getattr(augmentation, field):
            change = {field: getattr(augmentation, field)}
            current = dataclasses.replace(current, **change)
            result[field.replace("_", " ")] = current
    return result


def describe_label(target, class_names, most=2):
    """Formats a target distribution as text.

    Args:
        target: Array of shape (classes,).
        class_names: Names of the classes.
        most: Number of classes to name.

    Returns:
        Text such as `"0.68 tench + 0.23 hen"`, without the classes that only
        have the value of label smoothing.
    """
    best = np.argsort(-target, kind="stable")[:most]
    return " +\n".join(
        f"{target[index]:.2f} {class_names[index]}"
        for index in best
        if target[index] > target.min() + 0.005
    )


def save_contact_sheet(
    path: PathLike,
    dataset: ImageList | ImageRecords,
    augmentation: Augmentation,
    image_size: int,
    *,
    columns: int = 8,
    seed: int = 0,
    epoch: int = 0,
) -> None:
    """Writes a PNG with a row of images for each stage of an augmentation.

    Args:
        path: Path of the PNG.
        dataset: Data set from `open_dataset`.
        augmentation: An `Augmentation`.
        image_size: Side of the images, in pixels.
        columns: Number of images. They form the whole batch.
        seed: As in `train_batches`.
        epoch: As in `train_batches`.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If an argument is out of range.
    """
    check_positive_integer("columns", columns)
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "The contact sheet needs matplotlib. "
            "Install it with: pip install convmixer_tf[train]"
        ) from error
    rows = stages(augmentation)
    figure = Figure(
        figsize=(1.5 * columns, 1.9 * len(rows)), layout="constrained"
    )
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes, (name, stage) in zip(grid, rows.items(), strict=True):
        batches = train_batches(
            dataset, stage, image_size, columns, seed=seed, epoch=epoch
        )
        images, labels = next(batches.take(1).as_numpy_iterator())
        axes[0].set_ylabel(name)
        for ax, image, label in zip(axes, images, labels, strict=True):
            ax.imshow(image.clip(0, 255).astype("uint8"))
            ax.set_xticks([])
            ax.set_yticks([])
            ax.set_xlabel(
                describe_label(label, dataset.class_names), fontsize=7
            )
    figure.savefig(path, format="png", dpi=100)
