import functools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from PIL import ImageEnhance
from PIL import ImageOps

from convmixer_tf.data import operations

FILTERS = {False: Image.Resampling.BILINEAR, True: Image.Resampling.BICUBIC}


def enhance(enhancer):
    return lambda image, factor: enhancer(image).enhance(factor)


def posterize(image, bits):
    # Pillow 13 rejects 0 bits, earlier versions returned black.
    if bits == 0:
        return Image.new("RGB", image.size)
    return ImageOps.posterize(image, int(bits))


def solarize_add(image, addend):
    pixels = np.asarray(image).astype(int)
    brighter = np.minimum(pixels + int(addend), 255)
    return np.where(pixels < 128, brighter, pixels)


EXACT = {
    "posterize": (posterize, [0, 1, 2, 3, 4, 8]),
    "solarize": (
        lambda image, threshold: ImageOps.solarize(image, threshold),
        [0, 1, 26, 128, 255, 256],
    ),
    "solarize_add": (solarize_add, [0, 1, 55, 99, 110]),
    "color": (enhance(ImageEnhance.Color), [0.1, 0.19, 0.55, 1.0, 1.45, 1.9]),
    "contrast": (
        enhance(ImageEnhance.Contrast),
        [0.1, 0.19, 0.55, 1.0, 1.45, 1.9],
    ),
    "brightness": (
        enhance(ImageEnhance.Brightness),
        [0.1, 0.19, 0.55, 1.0, 1.45, 1.9],
    ),
    "sharpness": (
        enhance(ImageEnhance.Sharpness),
        [0.1, 0.19, 0.55, 1.0, 1.45, 1.9],
    ),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, (_, values) in EXACT.items() for value in values],
)
def test_equals_pillow(small_photos, name, value):
    expected = [
        np.asarray(EXACT[name][0](Image.fromarray(image), value))
        for image in small_photos
    ]
    actual = getattr(operations, name)(
        tf.constant(small_photos), tf.fill([4], np.float32(value))
    )
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("auto_contrast", ImageOps.autocontrast),
        ("equalize", ImageOps.equalize),
        ("invert", ImageOps.invert),
    ],
)
def test_equals_pillow_without_a_value(small_photos, name, peer):
    # Includes a constant channel, two values and a narrow range.
    odd = small_photos.copy()
    odd[0, ..., 1] = 7
    odd[1] = odd[1] // 128 * 50
    odd[2] = 100 + odd[2] // 16
    for images in (small_photos, odd):
        expected = [np.asarray(peer(Image.fromarray(x))) for x in images]
        actual = getattr(operations, name)(tf.constant(images))
        np.testing.assert_array_equal(actual, expected)


def affine(coefficients):
    def transform(image, value, **options):
        return image.transform(
            image.size,
            Image.Transform.AFFINE,
            coefficients(value, *image.size),
            **options,
        )

    return transform


AFFINE = {
    "shear_x": (affine(lambda v, w, h: (1, v, 0, 0, 1, 0)), 0.3),
    "shear_y": (affine(lambda v, w, h: (1, 0, 0, v, 1, 0)), 0.3),
    "translate_x": (affine(lambda v, w, h: (1, 0, v * w, 0, 1, 0)), 0.45),
    "translate_y": (affine(lambda v, w, h: (1, 0, 0, 0, 1, v * h)), 0.45),
    "rotate": (
        lambda image, degrees, **options: image.rotate(degrees, **options),
        30.0,
    ),
}


@pytest.mark.parametrize("cubic", [False, True], ids=["bilinear", "bicubic"])
@pytest.mark.parametrize("part", [-1.0, -0.9, -0.13, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("name", AFFINE)
def test_equals_pillow_when_resampling(small_photos, name, part, cubic):
    peer, most = AFFINE[name]
    value = np.float32(part * most)
    expected = [
        np.asarray(
            peer(
                Image.fromarray(image),
                float(value),
                resample=FILTERS[cubic],
                fillcolor=operations.FILL,
            )
        )
        for image in small_photos
    ]
    actual = getattr(operations, name)(
        tf.constant(small_photos), tf.fill([4], value), cubic
    )
    error = np.abs(actual.numpy() - np.array(expected, int))
    # All pixels, including the edges. Both truncate, here after float32 and
    # there after float64, so that some pixels differ by one: a tenth of them at
    # a shift of half a pixel. A position exactly on the border may be on either
    # side of it.
    assert error.mean() < 0.2
    assert (error > 1).mean() < 0.001


def test_each_image_has_its_own_value(small_photos):
    values = np.float32([0.1, 0.5, 1.2, 1.9])
    for name in ("color", "contrast", "brightness", "sharpness"):
        operation = getattr(operations, name)
        together = operation(tf.constant(small_photos), tf.constant(values))
        for index in range(4):
            alone = operation(
                tf.constant(small_photos[index : index + 1]),
                tf.constant(values[index : index + 1]),
            )
            np.testing.assert_array_equal(together[index], alone[0])


@pytest.mark.parametrize("name", [*EXACT, *AFFINE, "equalize", "invert"])
def test_empty_batch_stays_empty(name):
    operation = getattr(operations, name)
    if name in AFFINE:
        operation = functools.partial(operation, cubic=True)
    arguments = () if name in ("equalize", "invert") else (tf.zeros([0]),)
    images = tf.zeros([0, 9, 7, 3], tf.uint8)
    assert operation(images, *arguments).shape == (0, 9, 7, 3)
