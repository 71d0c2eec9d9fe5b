"""Tests that images are rotated like in Pillow, unless EXIF is malformed."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from PIL import ImageOps

from convmixer_tf.data import decode_image
from convmixer_tf.data.decoding import decode_crop
from convmixer_tf.data.orientation import read_orientation
from tests.helpers import OTHER_TAG
from tests.helpers import exif
from tests.helpers import jpeg
from tests.helpers import oriented

FORMATS = ("JPEG", "PNG", "WEBP")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_as_in_pillow(orientation, kind):
    order = "<>"[(orientation + FORMATS.index(kind)) % 2]
    encoded = oriented(orientation, order, kind)
    assert read_orientation(encoded) == orientation
    with Image.open(io.BytesIO(encoded)) as image:
        assert image.getexif()[0x0112] == orientation
        stored = np.asarray(image)
        upright = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(decode_image(encoded, "stored"), stored)
    np.testing.assert_array_equal(decode_image(encoded, "exif"), upright)
    np.testing.assert_array_equal(decode_image(encoded), upright)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_crop_is_part_of_the_upright_image(orientation, kind):
    encoded = tf.constant(oriented(orientation, kind=kind))
    whole = decode_image(encoded).numpy()
    sizes = []

    def choose(height, width):
        sizes.append((int(height), int(width)))
        return 3, 5, 11, 7

    crop = decode_crop(encoded, choose)
    assert sizes == [whole.shape[:2]]
    # In a JPEG, colors at the edges of a crop are from fewer pixels.
    margin = 2 if kind == "JPEG" else 0
    inside = (slice(margin, 11 - margin), slice(margin, 7 - margin))
    np.testing.assert_array_equal(
        crop.numpy()[inside], whole[3:14, 5:12][inside]
    )


def test_within_a_data_set():
    files = [oriented(6), oriented(3), oriented(8, kind="PNG"), jpeg()]
    dataset = tf.data.Dataset.from_tensor_slices(files).map(decode_image)
    shapes = [tuple(image.shape) for image in dataset]
    assert shapes == [(34, 21, 3), (21, 34, 3), (34, 21, 3), (21, 34, 3)]


def test_segments_before_it():
    encoded = oriented(8)
    one = b"\xff\xe2" + struct.pack(">H", 5) + b"abc"
    fill = b"\xff\xff"
    assert read_orientation(encoded[:2] + 3 * one + encoded[2:]) == 8
    assert read_orientation(encoded[:2] + fill + encoded[2:]) == 8
    # The work for one file is limited.
    assert read_orientation(encoded[:2] + 99 * one + encoded[2:]) == 1


def test_chunks_after_the_pixels():
    """Both are allowed: after IDAT in a PNG, as the last chunk of a WebP."""
    plain = oriented(None, kind="PNG")
    content = exif((0x0112, 3, 1, 6))[6:]
    chunk = b"eXIf" + content
    chunk = (
        struct.pack(">I", len(content))
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
    )
    end = plain.index(b"IEND") - 4
    late = plain[:end] + chunk + plain[end:]
    assert read_orientation(late) == 6
    with Image.open(io.BytesIO(late)) as image:
        image.load()
        assert image.getexif()[0x0112] == 6
    webp = oriented(6, kind="WEBP")
    assert webp.index(b"EXIF") > webp.index(b"VP8 ")


def test_exif_of_a_webp_with_and_without_prefix():
    webp = oriented(6, kind="WEBP")
    start = webp.index(b"EXIF")
    tiff = exif((0x0112, 3, 1, 7))[6:]
    for content in (tiff, b"Exif\0\0" + tiff):
        chunk = b"EXIF" + struct.pack("<I", len(content)) + content
        assert read_orientation(webp[:start] + chunk) == 7


@pytest.mark.parametrize(
    "content",
    [
        b"",
        exif(OTHER_TAG),
        exif((0x0112, 3, 1, 0)),
        exif((0x0112, 3, 1, 9)),
        exif((0x0112, 4, 1, 6)),  # A wrong type.
        exif((0x0112, 3, 2, 6)),  # Two of them.
        exif((0x0112, 3, 1, 6), start=2**32 - 1),
        exif((0x0112, 3, 1, 6), start=30),
        exif((0x0112, 3, 1, 6)).replace(b"II", b"MM"),
        exif((0x0112, 3, 1, 6)).replace(b"II", b"XX"),
        exif((0x0112, 3, 1, 6)).replace(b"Exif", b"exif"),
        b"Exif\0\0II*\0",
    ],
)
def test_what_says_nothing(content):
    encoded = jpeg(content)
    assert read_orientation(encoded) == 1
    assert decode_image(encoded).shape == (21, 34, 3)


def test_other_files():
    for encoded in (
        b"",
        b"\xff",
        b"\xff\xd8",
        b"no image Exif\0\0",
        b"RIFFEXIF",
    ):
        assert read_orientation(encoded) == 1
    assert read_orientation(oriented(None, kind="PNG")) == 1


@pytest.mark.parametrize("kind", FORMATS)
def test_cut_off_or_damaged_anywhere(kind):
    encoded = oriented(6, kind=kind)
    tiff = exif(OTHER_TAG, OTHER_TAG)[6:]
    end = encoded.index(b"II*\0") + len(tiff)
    for length in range(end):
        assert read_orientation(encoded[:length]) == 1, length
    assert read_orientation(encoded[:end]) == 6
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(encoded[: end + 20])
        for position in rng.integers(2, len(damaged), 3):
            damaged[position] = rng.integers(256)
        assert read_orientation(bytes(damaged)) in range(1, 9)


def test_neither_of_the_two():
    with pytest.raises(ValueError, match="`orientation` must be one of 'exif'"):
        decode_image(jpeg(), "upright")
