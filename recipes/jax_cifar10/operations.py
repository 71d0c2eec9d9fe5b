"""RandAugment in timm's variant, by Pillow.

Draws and settings are those of `convmixer_tf.data.rand_augment`, whose
operations have Pillow's arithmetic: given the same random numbers, the two
give the same images, but for a grey level where an image is turned or shifted.
"""

import statistics

import numpy as np
from PIL import Image
from PIL import ImageEnhance
from PIL import ImageOps

# Colour of the pixels that come in from outside of the image:
# round(255 * IMAGENET_MEAN), as in timm.
FILL = (124, 116, 104)

_MAX_MAGNITUDE = 10.0
_NORMAL = statistics.NormalDist()


def posterize(image, bits):
    """Keeps the highest `bits` bits of every pixel; none leaves black."""
    if bits < 1:  # Which Pillow refuses.
        return Image.new("RGB", image.size)
    return ImageOps.posterize(image, int(bits))


def solarize_add(image, addend):
    """Adds `addend` to the pixels under 128, up to 255."""
    table = [min(x + int(addend), 255) if x < 128 else x for x in range(256)]
    return image.point(table * 3)


def shear_x(image, slope, resample):
    """Shifts rows, each by `slope` times its distance from the top."""
    return _affine(image, (1, slope, 0, 0, 1, 0), resample)


def shear_y(image, slope, resample):
    """Shifts columns, each by `slope` times its distance from the left."""
    return _affine(image, (1, 0, 0, slope, 1, 0), resample)


def translate_x(image, fraction, resample):
    """Shifts the image to the left by a fraction of its width."""
    return _affine(image, (1, 0, fraction * image.width, 0, 1, 0), resample)


def translate_y(image, fraction, resample):
    """Shifts the image up by a fraction of its height."""
    return _affine(image, (1, 0, 0, 0, 1, fraction * image.height), resample)


def rotate(image, degrees, resample):
    """Turns the image counter-clockwise about its centre."""
    return image.rotate(degrees, resample, fillcolor=FILL)


def _affine(image, coefficients, resample):
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        coefficients,
        resample,
        fillcolor=FILL,
    )


def _without_value(operation):
    return lambda image, value: operation(image)


def _enhancement(enhancer):
    return lambda image, factor: enhancer(image).enhance(factor)


# In the order of `convmixer_tf.data.rand_augment.OPERATION_NAMES`.
_PIXEL_OPERATIONS = (
    _without_value(ImageOps.autocontrast),
    _without_value(ImageOps.equalize),
    _without_value(ImageOps.invert),
    posterize,
    ImageOps.solarize,
    solarize_add,
    _enhancement(ImageEnhance.Color),
    _enhancement(ImageEnhance.Contrast),
    _enhancement(ImageEnhance.Brightness),
    _enhancement(ImageEnhance.Sharpness),
)
_AFFINE_OPERATIONS = (rotate, shear_x, shear_y, translate_x, translate_y)
NUM_OPERATIONS = len(_PIXEL_OPERATIONS) + len(_AFFINE_OPERATIONS)


def apply(image, index, value, cubic):
    """Applies one operation to one image.

    Args:
        image: A `PIL.Image`.
        index: Integer, which operation.
        value: Float, its argument.
        cubic: Boolean, how an operation that moves pixels interpolates.

    Returns:
        A `PIL.Image`.
    """
    if index < len(_PIXEL_OPERATIONS):
        return _PIXEL_OPERATIONS[index](image, value)
    resample = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    operation = _AFFINE_OPERATIONS[index - len(_PIXEL_OPERATIONS)]
    return operation(image, value, resample)


def num_draws(settings):
    """Counts the random numbers that an image needs."""
    return 5 * settings.num_ops


def choose(draws, settings):
    """Chooses an operation and its argument for each image.

    Args:
        draws: float32 array of shape (batch, 5) of numbers in [0, 1).
        settings: A `convmixer_tf.data.RandAugment`, or a namespace like it.

    Returns:
        Four arrays of shape (batch,): which operation, whether to apply it,
        its argument, and whether to interpolate by cubics.
    """
    operation, applied, sign, quantile, cubic = draws.T
    index = (operation * NUM_OPERATIONS).astype(int)
    normal = [_NORMAL.inv_cdf(max(float(x), 1e-7)) for x in quantile]
    level = settings.magnitude + settings.magnitude_std * np.float32(normal)
    level = np.clip(level, 0.0, _MAX_MAGNITUDE).astype(np.float32)
    sign = np.where(sign < 0.5, np.float32(1), np.float32(-1))
    values = arguments(level, sign, settings.increasing)
    value = np.take_along_axis(values, index[None], axis=0)[0]
    return index, applied < settings.probability, value, cubic < 0.5


def arguments(level, sign, increasing):
    """Translates magnitudes to the arguments of all operations.

    Args:
        level: float32 array of shape (batch,), in [0, 10].
        sign: float32 array of shape (batch,), of -1 and 1.
        increasing: As in `convmixer_tf.data.RandAugment`.

    Returns:
        float32 array of shape (operations, batch); see
        `convmixer_tf.data.rand_augment.arguments`.
    """
    part = level / np.float32(_MAX_MAGNITUDE)
    none = np.zeros_like(part)
    bits, threshold = np.floor(part * 4), np.floor(part * 256)
    if increasing:
        bits, threshold = 4 - bits, 256 - threshold
        factor = np.maximum(np.float32(0.1), 1 + sign * part * np.float32(0.9))
    else:
        factor = np.float32(0.1) + part * np.float32(1.8)
    addend = np.floor(part * 110)
    slope = sign * part * np.float32(0.3)
    fraction = sign * part * np.float32(0.45)
    return np.stack(
        [
            *[none] * 3,
            *[bits, threshold, addend],
            *[factor] * 4,
            sign * part * 30,
            *[slope] * 2,
            *[fraction] * 2,
        ]
    )
