import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convmixer_tf.data import decode_image
from convmixer_tf.data.decoding import decode_crop


def encode(image, format, mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, format, **options)
    return file.getvalue()


def pillow(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


KINDS = {
    "jpeg": ("JPEG", "RGB", {"quality": 80}),
    "jpeg 4:4:4": ("JPEG", "RGB", {"subsampling": 0}),
    "progressive jpeg": ("JPEG", "RGB", {"progressive": True}),
    "gray jpeg": ("JPEG", "L", {}),
    "png": ("PNG", "RGB", {}),
    "gray png": ("PNG", "L", {}),
    "palette png": ("PNG", "P", {}),
    "transparent png": ("PNG", "RGBA", {}),
    "gray transparent png": ("PNG", "LA", {}),
    "bmp": ("BMP", "RGB", {}),
    "gray bmp": ("BMP", "L", {}),
    "gif": ("GIF", "P", {}),
    "webp": ("WEBP", "RGB", {"quality": 80}),
    "lossless webp": ("WEBP", "RGB", {"lossless": True}),
    "transparent webp": ("WEBP", "RGBA", {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_equals_pillow(photos, kind):
    encoded = encode(photos[0], *KINDS[kind][:2], **KINDS[kind][2])
    decoded = decode_image(encoded)
    assert decoded.shape == (427, 640, 3)
    np.testing.assert_array_equal(decoded, pillow(encoded))


def test_cmyk(photos):
    encoded = encode(photos[0], "JPEG", "CMYK", quality=90)
    error = np.abs(decode_image(encoded) - pillow(encoded).astype(int))
    assert error.max() <= 2


def test_crop_is_part_of_the_whole(photos):
    box = (40, 30, 111, 222)
    for kind in ("jpeg 4:4:4", "png", "webp"):
        encoded = encode(photos[0], *KINDS[kind][:2], **KINDS[kind][2])
        sizes = []

        def choose(height, width, sizes=sizes):
            sizes.append((int(height), int(width)))
            return box

        crop = decode_crop(tf.constant(encoded), choose)
        assert sizes == [(427, 640)]
        np.testing.assert_array_equal(
            crop, pillow(encoded)[40 : 40 + 111, 30 : 30 + 222]
        )


@pytest.mark.parametrize("broken", [b"", b"No image.", b"\xff\xd8\xff\xe0"])
def test_refuses_what_is_no_image(broken):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(tf.constant(broken))


def test_refuses_a_bmp_with_a_palette(photos):
    encoded = encode(photos[0], "BMP", "P")
    with pytest.raises(tf.errors.InvalidArgumentError, match="Save it as PNG"):
        decode_image(tf.constant(encoded))
    images = tf.data.Dataset.from_tensors(encoded).map(decode_image)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Save it as PNG"):
        next(iter(images))


def test_refuses_a_truncated_jpeg(photos):
    encoded = encode(photos[0], "JPEG")
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(tf.constant(encoded[: len(encoded) // 2]))
