"""RandAugment as in timm's `rand-mM-nN-mstdS-incI` settings."""

import dataclasses
import functools
import re

import tensorflow as tf

from convmixer_tf.data import operations
from convmixer_tf.data.dispatch import apply_chosen
from convmixer_tf.data.validation import check_images
from convmixer_tf.data.validation import check_range
from convmixer_tf.validation import check_positive_integer

# Magnitudes are on a scale of 0 to 10.
_MAX_MAGNITUDE = 10.0

OPERATION_NAMES = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "Rotate",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Settings of RandAugment (arXiv 1909.13719) in timm's variant.

    The defaults are `rand-m9-mstd0.5-inc1`, the authors' setting.

    Attributes:
        magnitude: Mean magnitude, 0 to 10.
        num_ops: Number of operations that are drawn, with replacement, from the
            15 in `OPERATION_NAMES`.
        magnitude_std: Standard deviation of the magnitude. The magnitude is
            drawn from a normal distribution and clipped to [0, 10].
        increasing: Whether posterize, solarize, color, contrast, brightness and
            sharpness become stronger with the magnitude. If false,
            AutoAugment's versions are used, some of which become weaker.
        probability: Probability that a drawn operation is applied.
    """

    magnitude: float = 9.0
    num_ops: int = 2
    magnitude_std: float = 0.5
    increasing: bool = True
    probability: float = 0.5

    def __post_init__(self):
        check_range("magnitude", self.magnitude, 0, _MAX_MAGNITUDE)
        check_positive_integer("num_ops", self.num_ops)
        check_range("magnitude_std", self.magnitude_std, 0, 100)
        check_range("probability", self.probability, 0, 1)

    @property
    def num_draws(self):
        """Number of random numbers that one image needs."""
        return 5 * self.num_ops

    @classmethod
    def from_string(cls, text):
        """Reads timm's notation, such as `"rand-m9-n2-mstd0.5-inc1"`.

        Args:
            text: `"rand"` followed by any of `-m` (magnitude, 10 if missing),
                `-n` (number of operations), `-mstd` (standard deviation, 0 if
                missing), `-inc` (0 or 1, 0 if missing) and `-p` (probability),
                each with its number.

        Returns:
            A `RandAugment`.

        Raises:
            ValueError: If the text is malformed.
        """
        head, *parts = text.split("-")
        settings = {"magnitude": 10.0, "magnitude_std": 0.0, "increasing": 0.0}
        fields = {
            "m": "magnitude",
            "n": "num_ops",
            "mstd": "magnitude_std",
            "inc": "increasing",
            "p": "probability",
        }
        for part in parts:
            match = re.fullmatch(r"([a-z]+)([0-9]+\.?[0-9]*)", part)
            if head != "rand" or not match or match[1] not in fields:
                head = None
                break
            settings[fields[match[1]]] = float(match[2])
        if head != "rand":
            raise ValueError(
                "Argument `text` must be like 'rand-m9-n2-mstd0.5-inc1', with "
                f"parts m, n, mstd, inc and p. Received: text={text!r}"
            )
        settings["increasing"] = bool(settings["increasing"])
        settings["num_ops"] = int(settings.get("num_ops", 2))
        return cls(**settings)


def rand_augment(images, seed, config):
    """Applies RandAugment to a batch, with different operations per image.

    Args:
        images: uint8 tensor of shape (batch, height, width, 3).
        seed: Integer tensor of shape (2,); the same seed gives the same result.
        config: A `RandAugment`.

    Returns:
        uint8 tensor of the shape of `images`.

    Raises:
        ValueError: If `images` has another type, rank or number of channels.
    """
    images = check_images(images, ("uint8",), channels=3)
    shape = (tf.shape(images)[0], config.num_draws)
    draws = tf.random.stateless_uniform(shape, seed)
    return rand_augment_with(draws, images, config)


def rand_augment_with(draws, images, config):
    """Applies RandAugment with given random numbers.

    Args:
        draws: float32 tensor of shape (batch, config.num_draws) of numbers in
            [0, 1).
        images: uint8 tensor of shape (batch, height, width, 3).
        config: A `RandAugment`.

    Returns:
        uint8 tensor of the shape of `images`.
    """
    for slot in tf.split(draws, config.num_ops, axis=1):
        branch, value = _choose(slot, config)
        images = apply_chosen(images, branch, value, _BRANCHES)
    return images


def _choose(draws, config):
    """Draws a branch and its argument for each image.

    Args:
        draws: float32 tensor of shape (batch, 5) of numbers in [0, 1).
        config: A `RandAugment`.

    Returns:
        Index in `_BRANCHES`, or its length for no operation, int32 of shape
        (batch,); and the argument, float32 of shape (batch,).
    """
    operation, apply, sign, quantile, cubic = tf.unstack(draws, axis=1)
    index = tf.cast(operation * len(OPERATION_NAMES), tf.int32)
    level = config.magnitude + config.magnitude_std * tf.math.ndtri(
        tf.maximum(quantile, 1e-7)
    )
    level = tf.clip_by_value(level, 0.0, _MAX_MAGNITUDE)
    sign = tf.where(sign < 0.5, 1.0, -1.0)
    values = tf.stack(arguments(level, sign, config.increasing), axis=1)
    # The affine operations come last and have a branch for each filter.
    affine = index - len(_PIXEL_OPERATIONS)
    filter_ = tf.where(affine < 0, 0, affine + tf.cast(cubic < 0.5, tf.int32))
    branch = tf.where(
        apply < config.probability, index + filter_, len(_BRANCHES)
    )
    return branch, tf.gather(values, index, batch_dims=1)


def arguments(level, sign, increasing):
    """Converts a magnitude to the argument of each operation.

    The numbers are timm's (`rand_augment_transform`).

    Args:
        level: Tensor of magnitudes in [0, 10].
        sign: Tensor of -1 and 1, for the operations that have two directions.
        increasing: As in `RandAugment`.

    Returns:
        List of tensors in the order of `OPERATION_NAMES`: zero for the first
        three, which take no argument; bits to keep; threshold; addend; four
        factors; degrees; two slopes; two fractions of the side.
    """
    part = level / _MAX_MAGNITUDE
    none = tf.zeros_like(part)
    bits, threshold = tf.floor(part * 4.0), tf.floor(part * 256.0)
    if increasing:
        bits, threshold = 4.0 - bits, 256.0 - threshold
        factor = tf.maximum(0.1, 1.0 + sign * part * 0.9)
    else:
        factor = 0.1 + part * 1.8
    addend = tf.floor(part * 110.0)
    slope, fraction = sign * part * 0.3, sign * part * 0.45
    return [
        *[none] * 3,
        *[bits, threshold, addend],
        *[factor] * 4,
        sign * part * 30.0,
        *[slope] * 2,
        *[fraction] * 2,
    ]


def _without_value(operation):
    return lambda images, value: operation(images)


_PIXEL_OPERATIONS = (
    _without_value(operations.auto_contrast),
    _without_value(operations.equalize),
    _without_value(operations.invert),
    operations.posterize,
    operations.solarize,
    operations.solarize_add,
    operations.color,
    operations.contrast,
    operations.brightness,
    operations.sharpness,
)
_AFFINE_OPERATIONS = (
    operations.rotate,
    operations.shear_x,
    operations.shear_y,
    operations.translate_x,
    operations.translate_y,
)
_BRANCHES = (
    *_PIXEL_OPERATIONS,
    *(
        functools.partial(operation, cubic=cubic)
        for operation in _AFFINE_OPERATIONS
        for cubic in (False, True)
    ),
)
