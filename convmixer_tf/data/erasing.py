"""Random erasing in normalized space, on pixels."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from convmixer_tf.data.validation import check_choice
from convmixer_tf.data.validation import check_images
from convmixer_tf.data.validation import check_range
from convmixer_tf.preprocessing import IMAGENET_MEAN
from convmixer_tf.preprocessing import IMAGENET_STD

MODES = ("pixel", "rand", "const")

# As in timm and torchvision, nothing is erased if ten boxes do not fit.
_TRIES = 10


@dataclasses.dataclass(frozen=True)
class RandomErasing:
    """Settings of random erasing (arXiv 1708.04896).

    The defaults are the authors'.

    Attributes:
        probability: Probability that an image loses a box.
        min_area: Minimum fraction of the area. The area is drawn uniformly.
        max_area: Maximum fraction of the area.
        min_aspect: Minimum ratio of height to width. The maximum is its
            inverse. The logarithm of the ratio is drawn uniformly.
        mode: Content of the box, in normalized space. `"pixel"`: N(0, 1) for
            every pixel and channel; `"rand"`: one color from N(0, 1);
            `"const"`: zeros.
        mean: Mean of each channel, of pixels scaled to [0, 1], or one number
            for all. The default fits any number of channels, as in `ConvMixer`:
            one channel gets the average, and for more than three channels the
            values repeat.
        std: Standard deviation of each channel, with the same rules as `mean`.
    """

    probability: float = 0.25
    min_area: float = 0.02
    max_area: float = 1 / 3
    min_aspect: float = 0.3
    mode: str = "pixel"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self):
        check_range("probability", self.probability, 0, 1)
        check_range("max_area", self.max_area, 0, 1)
        check_range("min_area", self.min_area, 0, self.max_area)
        check_range("min_aspect", self.min_aspect, 0.01, 1)
        check_choice("mode", self.mode, MODES)


def random_erase(images, seed, config):
    """Erases a random box of some images of a batch.

    The models take pixels and normalize them. A value z that is drawn in
    normalized space is therefore inserted as the pixel `255 * (mean + std *
    z)`, which the model converts back to z. Such pixels may be fractional and
    outside of [0, 255].

    Args:
        images: Float tensor of shape (batch, height, width, channels), of
            pixels. uint8 can't hold the inserted values; cast such images
            first.
        seed: Integer tensor of shape (2,); the same seed gives the same result.
        config: A `RandomErasing`.

    Returns:
        Tensor of the type and shape of `images`.

    Raises:
        ValueError: If `images` has a wrong type or rank, if its number of
            channels is unknown, or if the mean or the standard deviation in
            `config` is for another number of channels.
    """
    images = check_images(images, ("float",))
    channels = images.shape[3]
    mean = _per_channel("mean", config.mean, IMAGENET_MEAN, channels)
    std = _per_channel("std", config.std, IMAGENET_STD, channels)
    batch, height, width = tf.unstack(tf.shape(images)[:3])
    seeds = tf.random.split(seed, 2)
    top, left, rows, columns = _draw_boxes(
        batch, height, width, seeds[0], config
    )

    # Random numbers are expensive, so only erased pixels get them. Each row of
    # a box becomes a run of pixels.
    image = tf.repeat(tf.range(batch), rows)
    y = tf.ragged.range(rows).flat_values + tf.repeat(top, rows)
    first = (image * height + y) * width + tf.repeat(left, rows)
    length = tf.repeat(columns, rows)
    pixel = tf.ragged.range(first, first + length).flat_values

    if config.mode == "pixel":
        shape = [tf.shape(pixel)[0], channels]
        noise = tf.random.stateless_normal(shape, seeds[1])
    elif config.mode == "rand":
        noise = tf.random.stateless_normal([batch, channels], seeds[1])
        noise = tf.gather(noise, tf.repeat(image, length))
    else:
        noise = tf.zeros([tf.shape(pixel)[0], channels])
    values = tf.cast(255.0 * (mean + std * noise), images.dtype)
    erased = tf.tensor_scatter_nd_update(
        tf.reshape(images, [-1, channels]), pixel[:, None], values
    )
    return tf.ensure_shape(tf.reshape(erased, tf.shape(images)), images.shape)


def _per_channel(name, values, default, channels):
    """Adapts a mean or a deviation to the channels, like `ConvMixer`."""
    found = np.atleast_1d(np.float32(values))
    if len(found) in (1, channels):
        return np.broadcast_to(found, channels)
    if tuple(values) != default:
        raise ValueError(
            f"Setting `{name}` of `RandomErasing` must be one number or one "
            f"for each of the images' {channels} channels. Received: "
            f"{name}={values}"
        )
    return np.resize(found.mean() if channels == 1 else found, channels)


def _draw_boxes(batch, height, width, seed, config):
    """Draws top, left, rows and columns, each int32 of shape (batch,).

    Images that are not erased get zero rows.
    """
    uniform = tf.random.stateless_uniform([batch, 2 * _TRIES + 3], seed)
    full_height = tf.cast(height, tf.float32)
    full_width = tf.cast(width, tf.float32)
    area = config.min_area + uniform[:, :_TRIES] * (
        config.max_area - config.min_area
    )
    area *= full_height * full_width
    log_aspect = math.log(config.min_aspect)
    aspect = tf.exp(log_aspect - 2.0 * log_aspect * uniform[:, _TRIES:-3])
    rows = tf.round(tf.sqrt(area * aspect))
    columns = tf.round(tf.sqrt(area / aspect))
    fits = (rows < full_height) & (columns < full_width)
    first = tf.argmax(tf.cast(fits, tf.int32), axis=1)
    rows = tf.gather(rows, first, batch_dims=1)
    columns = tf.gather(columns, first, batch_dims=1)

    top = tf.floor(uniform[:, -3] * (full_height - rows + 1.0))
    left = tf.floor(uniform[:, -2] * (full_width - columns + 1.0))
    erased = tf.reduce_any(fits, axis=1)
    erased &= uniform[:, -1] < config.probability
    rows = tf.where(erased, rows, 0.0)
    return [tf.cast(x, tf.int32) for x in (top, left, rows, columns)]
