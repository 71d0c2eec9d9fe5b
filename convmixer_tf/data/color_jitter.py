"""Random brightness, contrast and saturation."""

import dataclasses
import itertools

import tensorflow as tf

from convmixer_tf.data import operations
from convmixer_tf.data.dispatch import apply_chosen
from convmixer_tf.data.validation import check_images
from convmixer_tf.data.validation import check_range

_BRANCHES = (operations.brightness, operations.contrast, operations.color)
_ORDERS = tuple(itertools.permutations(range(len(_BRANCHES))))


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Settings of color jitter. Factors are drawn from 1 - x to 1 + x.

    Attributes:
        brightness: Range of the brightness factor.
        contrast: Range of the contrast factor.
        saturation: Range of the saturation factor.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4

    num_draws = 1 + len(_BRANCHES)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            check_range(field.name, getattr(self, field.name), 0, 1)


def color_jitter(images, seed, config):
    """Applies color jitter in a random order for each image.

    Args:
        images: uint8 tensor of shape (batch, height, width, 3).
        seed: Integer tensor of shape (2,); the same seed gives the same result.
        config: A `ColorJitter`.

    Returns:
        uint8 tensor of the shape of `images`.

    Raises:
        ValueError: If `images` has another type, rank or number of channels.
    """
    images = check_images(images, ("uint8",), channels=3)
    shape = (tf.shape(images)[0], config.num_draws)
    draws = tf.random.stateless_uniform(shape, seed)
    return color_jitter_with(draws, images, config)


def color_jitter_with(draws, images, config):
    """Applies color jitter with given random numbers.

    Args:
        draws: float32 tensor of shape (batch, config.num_draws) of numbers in
            [0, 1).
        images: uint8 tensor of shape (batch, height, width, 3).
        config: A `ColorJitter`.

    Returns:
        uint8 tensor of the shape of `images`.
    """
    span = tf.constant(dataclasses.astuple(config))
    factors = 1.0 + span * (2.0 * draws[:, 1:] - 1.0)
    order = tf.gather(_ORDERS, tf.cast(draws[:, 0] * len(_ORDERS), tf.int32))
    for choice in tf.unstack(order, axis=1):
        factor = tf.gather(factors, choice, batch_dims=1)
        images = apply_chosen(images, choice, factor, _BRANCHES)
    return images
