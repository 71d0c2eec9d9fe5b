"""Reads samples of a data set into one array."""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from convmixer_tf.data.cropping import CROP_FRACTION
from convmixer_tf.data.datasets import EXTENSIONS
from convmixer_tf.data.datasets import ImageList
from convmixer_tf.data.datasets import list_images
from convmixer_tf.data.decoding import ORIENTATION
from convmixer_tf.data.evaluation import evaluation_batches
from convmixer_tf.files import PathLike
from convmixer_tf.validation import check_positive_integer

if TYPE_CHECKING:
    from convmixer_tf.data.records import ImageRecords

_BATCH_SIZE = 32


def open_unlabeled(folder: PathLike) -> ImageList:
    """Opens a folder of images without class labels.

    Args:
        folder: Path of a folder of image files. Subfolders are ignored.

    Returns:
        An `ImageList` without class names; all labels are -1.

    Raises:
        FileNotFoundError: If the folder does not exist or has no images.
    """
    paths = list_images(pathlib.Path(folder))
    if not paths:
        raise FileNotFoundError(
            f"There are no images in `{folder}`. Expected files "
            f"*{{{','.join(EXTENSIONS)}}}."
        )
    return open_files(paths)


def open_files(paths):
    """Opens image files without class labels.

    Args:
        paths: List of paths. The files are not checked.

    Returns:
        An `ImageList` without class names; all labels are -1.
    """
    return ImageList(
        names=tf.constant([os.fsencode(path) for path in paths], tf.string),
        labels=tf.constant([-1] * len(paths), tf.int64),
        class_names=(),
    )


def read_images(
    dataset: ImageList | ImageRecords,
    image_size: int,
    limit: int | None = None,
    *,
    crop_fraction: float = CROP_FRACTION,
    orientation: str = ORIENTATION,
) -> tuple[np.ndarray, np.ndarray]:
    """Reads images into memory and applies the evaluation transform.

    Args:
        dataset: Data set from `open_dataset` or `open_unlabeled`.
        image_size: Side of the images, in pixels.
        limit: Integer, the maximum number of images; `None` for all. From an
            `ImageList`, evenly spaced images are read, so that all classes
            appear. From `ImageRecords`, the first images are read.
        crop_fraction: As in `resize_and_center_crop`.
        orientation: As in `decode_image`.

    Returns:
        uint8 array of pixels, (images, image_size, image_size, 3), and int64
        array of labels, (images,), or (images, classes) as in `ImageList`.

    Raises:
        ValueError: If an argument is out of range.
        tf.errors.InvalidArgumentError: If an image is unreadable.
    """
    count = len(dataset)
    if limit is not None:
        check_positive_integer("limit", limit)
        count = min(count, limit)
    if isinstance(dataset, ImageList):
        dataset = dataset.select(np.arange(count) * len(dataset) // count)
    images = np.zeros((count, image_size, image_size, 3), np.uint8)
    labels = []
    batches = evaluation_batches(
        dataset,
        image_size,
        _BATCH_SIZE,
        crop_fraction=crop_fraction,
        orientation=orientation,
    )
    start = 0
    for pixels, known, weights in batches:
        real = np.flatnonzero(weights.numpy())[: count - start]
        images[start : start + len(real)] = pixels.numpy()[real]
        labels.append(known.numpy()[real])
        start += len(real)
        if start == count:
            break
    return images, np.concatenate(labels)
