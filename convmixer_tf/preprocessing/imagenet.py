"""ImageNet's pixel statistics and class names."""

import csv
import functools
import importlib.resources
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

# Per channel (red, green, blue), for pixels scaled to [0, 1]. The published
# weights were trained with these values.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Fraction of the resized image in the evaluation crop, from timm's
# configuration of the published weights.
CROP_FRACTION = 0.96


class ImageNetClass(NamedTuple):
    """The WordNet identifier and the name of a class."""

    wnid: str
    name: str


@functools.cache
def imagenet_classes() -> tuple[ImageNetClass, ...]:
    """Lists ImageNet's 1,000 classes in the order of the models' outputs.

    Returns:
        A tuple of 1,000 `(wnid, name)` named tuples, such as
        `("n01440764", "tench")`. The names are those of `keras.applications`.
    """
    table = importlib.resources.files(__package__) / "imagenet_classes.csv"
    rows = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    return tuple(ImageNetClass(row["wnid"], row["name"]) for row in rows)


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Returns `x` unchanged because the models normalize their input.

    It exists so that code for `keras.applications` runs unchanged. For a model
    with `include_preprocessing=False`, call `normalize` instead, with the
    model's mean and standard deviation.

    Args:
        x: Array or tensor of pixels in [0, 255].
        data_format: Not used.

    Returns:
        `x`.
    """
    del data_format
    return x


def normalize(
    x: Any,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    data_format: str | None = None,
) -> Any:
    """Normalizes pixels for a model built with `include_preprocessing=False`.

    Args:
        x: Array or tensor of pixels in [0, 255], of shape
            (..., height, width, channels), or (..., channels, height, width)
            for `"channels_first"`.
        mean: Mean of each channel, of pixels scaled to [0, 1].
            `CIFAR10_MEAN` for `ConvMixer256_8`, 0 for `ConvMixer512_16`.
        std: Standard deviation of each channel, of pixels scaled to [0, 1].
            `CIFAR10_STD` for `ConvMixer256_8`, 1 for `ConvMixer512_16`.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to
            `keras.config.image_data_format()`.

    Returns:
        A float32 array if `x` is a NumPy array, otherwise a float32 tensor:
        `(x / 255 - mean) / std`.

    Raises:
        ValueError: If `mean` or `std` is neither one number nor one for each
            channel.
    """
    data_format = data_format or keras.config.image_data_format()
    if isinstance(x, np.ndarray):
        x = x.astype("float32")
    else:
        x = ops.cast(x, "float32")
    first = data_format == "channels_first"
    means, stds = np.asarray(mean, "float32"), np.asarray(std, "float32")
    channels = x.shape[-3 if first else -1]  # None if unknown.
    if channels and {means.size, stds.size} - {1, channels}:
        raise ValueError(
            "Arguments `mean` and `std` must be a number or one for each of "
            f"the {channels} channels of `x`, which has shape {tuple(x.shape)} "
            f"({data_format}). Received: mean={mean}, std={std}"
        )
    shape = (-1, 1, 1) if first else (-1,)
    return (x / 255 - means.reshape(shape)) / stds.reshape(shape)
