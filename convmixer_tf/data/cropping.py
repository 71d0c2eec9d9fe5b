"""Crops and flips that turn an image file of any size into a square."""

import dataclasses
import math

import tensorflow as tf

from convmixer_tf.data.decoding import ORIENTATION
from convmixer_tf.data.decoding import decode_crop
from convmixer_tf.data.decoding import decode_image
from convmixer_tf.data.resampling import resample
from convmixer_tf.data.validation import check_choice
from convmixer_tf.data.validation import check_range
from convmixer_tf.preprocessing.imagenet import CROP_FRACTION
from convmixer_tf.validation import check_positive_integer

# As in timm and torchvision, a central box follows ten boxes that do not fit.
_TRIES = 10


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """A random crop of the image, resized. The defaults are the authors'.

    Attributes:
        min_area: Minimum fraction of the image's area. The area is drawn
            uniformly.
        max_area: Maximum fraction of the image's area.
        min_aspect: Minimum ratio of width to height. The maximum is its
            inverse. The logarithm of the ratio is drawn uniformly.
        interpolation: `"bilinear"`, `"bicubic"`, or `"random"` for either.
    """

    min_area: float = 0.08
    max_area: float = 1.0
    min_aspect: float = 3 / 4
    interpolation: str = "random"

    num_draws = 2 * _TRIES + 3

    def __post_init__(self):
        check_range("max_area", self.max_area, 0.001, 1)
        check_range("min_area", self.min_area, 0.001, self.max_area)
        check_range("min_aspect", self.min_aspect, 0.01, 1)
        check_choice(
            "interpolation",
            self.interpolation,
            ("random", "bilinear", "bicubic"),
        )

    def __call__(self, encoded, size, draws, flip, orientation=ORIENTATION):
        """Decodes, crops, resizes and flips.

        Args:
            encoded: Scalar string tensor, the bytes of a file.
            size: Side of the result, in pixels.
            draws: Random numbers in [0, 1), shape (num_draws,).
            flip: Scalar boolean tensor, whether to flip horizontally.
            orientation: As in `decode_image`.

        Returns:
            uint8 tensor of shape (size, size, 3).
        """
        image = decode_crop(
            encoded,
            lambda height, width: self._box(height, width, draws),
            orientation,
        )
        cubic = {
            "random": draws[-1] < 0.5,
            "bilinear": False,
            "bicubic": True,
        }[self.interpolation]
        return resample(image, [size, size], [0, 0], size, cubic, flip)

    def _box(self, height, width, draws):
        full_height = tf.cast(height, tf.float32)
        full_width = tf.cast(width, tf.float32)
        area = self.min_area + draws[:_TRIES] * (self.max_area - self.min_area)
        area *= full_height * full_width
        log_aspect = math.log(self.min_aspect)
        aspect = tf.exp(log_aspect - 2.0 * log_aspect * draws[_TRIES:-3])
        columns = tf.round(tf.sqrt(area * aspect))
        rows = tf.round(tf.sqrt(area / aspect))
        fits = (columns <= full_width) & (rows <= full_height)
        fits &= (columns >= 1.0) & (rows >= 1.0)
        first = tf.argmax(tf.cast(fits, tf.int32))
        any_fits = tf.reduce_any(fits)
        # Otherwise the largest central box of an allowed aspect ratio.
        most = full_height / self.min_aspect
        columns = tf.where(
            any_fits, columns[first], tf.minimum(full_width, tf.round(most))
        )
        most = full_width / self.min_aspect
        rows = tf.where(
            any_fits, rows[first], tf.minimum(full_height, tf.round(most))
        )
        free_rows, free_columns = full_height - rows, full_width - columns
        top = tf.where(
            any_fits,
            tf.floor(draws[-3] * (free_rows + 1.0)),
            tf.floor(free_rows / 2.0),
        )
        left = tf.where(
            any_fits,
            tf.floor(draws[-2] * (free_columns + 1.0)),
            tf.floor(free_columns / 2.0),
        )
        return [tf.cast(x, tf.int32) for x in (top, left, rows, columns)]


@dataclasses.dataclass(frozen=True)
class PadAndCrop:
    """Black borders, then a random crop, as is usual for small images.

    Attributes:
        padding: Width of the border, in pixels. An image of another size is
            first resized to the size of the crop.
    """

    padding: int = 4

    num_draws = 2

    def __post_init__(self):
        check_positive_integer("padding", self.padding)

    def __call__(self, encoded, size, draws, flip, orientation=ORIENTATION):
        """Decodes, pads, crops and flips, like `RandomResizedCrop`."""
        image = decode_image(encoded, orientation)
        image = resample(image, [size, size], [0, 0], size, True, flip)
        image = tf.pad(image, [[self.padding] * 2, [self.padding] * 2, [0, 0]])
        corner = tf.cast(draws * (2 * self.padding + 1), tf.int32)
        return image[corner[0] : corner[0] + size, corner[1] : corner[1] + size]


def resize_and_center_crop(
    image: tf.Tensor, size: int, crop_fraction: float = CROP_FRACTION
) -> tf.Tensor:
    """Applies timm's evaluation transform for the published weights.

    The shorter side is resized to `floor(size / crop_fraction)` pixels with
    Pillow's bicubic filter. Then the center is cropped. The transform consists
    of graph operations only, so a SavedModel can contain it.

    Args:
        image: uint8 tensor of shape (height, width, 3).
        size: Side of the result, in pixels, a Python integer.
        crop_fraction: Fraction of the shorter side that is kept, in (0, 1].

    Returns:
        uint8 tensor of shape (size, size, 3).

    Raises:
        ValueError: If an argument is out of range.
    """
    check_positive_integer("size", size)
    check_range("crop_fraction", crop_fraction, 0.01, 1)
    shorter = math.floor(size / crop_fraction)
    sides = tf.shape(image)[:2]
    full = shorter * sides // tf.reduce_min(sides)
    # Halves are rounded to even numbers, as in Python's round.
    offset = tf.round(tf.cast(full - size, tf.float32) / 2.0)
    return resample(
        image, tf.unstack(full), tf.unstack(offset), size, cubic=True
    )
