"""Normalizes pixels for a ConvMixer."""

import keras
import numpy as np
from keras import layers

from convmixer_tf.models.contract import channels_first
from convmixer_tf.models.contract import number_of_channels
from convmixer_tf.preprocessing import CIFAR10_MEAN
from convmixer_tf.preprocessing import CIFAR10_STD
from convmixer_tf.preprocessing import IMAGENET_MEAN
from convmixer_tf.preprocessing import IMAGENET_STD
from convmixer_tf.validation import plain

_STATISTICS = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "cifar10": (CIFAR10_MEAN, CIFAR10_STD),
}


def statistics_of(published, channels):
    """Returns the mean and deviation of published weights for each channel.

    Args:
        published: A `PublishedWeights`, or `None` for ImageNet's.
        channels: Integer. One channel gets the averages of red, green and blue;
            for more than three channels they repeat.

    Returns:
        Two lists with a number for each channel.
    """
    mean, std = _STATISTICS[published.dataset if published else "imagenet"]
    if published and published.mean is not None:
        mean, std = published.mean, published.std
    if channels == 1:
        return [[sum(x) / len(x)] for x in (mean, std)]
    return [
        [values[i % len(values)] for i in range(channels)]
        for values in (mean, std)
    ]


def normalization(shape, mean=None, std=None, published=None):
    """Builds the layer that normalizes pixels in [0, 255].

    Args:
        shape: Tuple of three, the shape of the image.
        mean: Mean of the pixels scaled to [0, 1]: a number, one for each
            channel, or `None` for the mean of `published`.
        std: Standard deviation of the pixels scaled to [0, 1], with the same
            rules as `mean`.
        published: A `PublishedWeights`, or `None` for ImageNet's.

    Returns:
        A layer that computes (pixels / 255 - mean) / std. It computes in the
        variables' precision even if the rest of the model uses half precision.

    Raises:
        ValueError: If `mean` or `std` has another length, or if a standard
            deviation is not positive.
    """
    channels = number_of_channels(shape)
    default_mean, default_std = statistics_of(published, channels)
    mean = _per_channel("mean", mean, default_mean, channels)
    std = _per_channel("std", std, default_std, channels)
    if min(std) <= 0:
        raise ValueError(f"Argument `std` must be positive. Received: {std}")
    # Image-shaped, so that a file does not depend on the global data format.
    shape = (channels, 1, 1) if channels_first() else (1, 1, channels)
    std = np.reshape(std, shape)
    return layers.Rescaling(
        scale=(1 / (255 * std)).tolist(),
        offset=(-np.reshape(mean, shape) / std).tolist(),
        dtype=keras.config.dtype_policy().variable_dtype,
        name="normalization",
    )


def statistics_in(config):
    """Reads the mean and deviation of pixels scaled to [0, 1].

    Args:
        config: Config of the layer that `normalization` builds, or of the
            `keras.layers.Normalization` that earlier versions built.

    Returns:
        Two lists with a number for each channel.
    """
    if "variance" in config:
        mean = np.ravel(config["mean"]) / 255
        std = np.sqrt(np.ravel(config["variance"])) / 255
    else:
        std = 1 / (255 * np.ravel(config["scale"]))
        mean = -np.ravel(config["offset"]) * std
    return mean.tolist(), std.tolist()


def _per_channel(name, values, default, channels):
    if values is None:
        return default
    if isinstance(plain(values), int | float):
        return [float(values)] * channels
    if np.ndim(values) != 1 or len(values) != channels:
        raise ValueError(
            f"Argument `{name}` must be a number or one for each of the "
            f"{channels} channels. Received: {name}={values!r}"
        )
    return [float(value) for value in values]
