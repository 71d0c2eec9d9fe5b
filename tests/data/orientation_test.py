"""Photographs are turned as Pillow turns them; nonsense leaves them alone."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from PIL import ImageOps

from convmixer_tf.data.orientation import decode_upright
from convmixer_tf.data.orientation import read_orientation
from tests.helpers import OTHER_TAG
from tests.helpers import exif
from tests.helpers import jpeg
from tests.helpers import oriented


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_as_in_pillow(orientation, order):
    encoded = oriented(orientation, order)
    assert read_orientation(encoded) == orientation
    with Image.open(io.BytesIO(encoded)) as image:
        assert image.getexif()[0x0112] == orientation
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(decode_upright(encoded), expected)


def test_within_a_data_set():
    files = [oriented(6), oriented(3), jpeg()]
    shapes = [
        tuple(image.shape)
        for image in tf.data.Dataset.from_tensor_slices(files).map(
            decode_upright
        )
    ]
    assert shapes == [(34, 21, 3), (21, 34, 3), (21, 34, 3)]


def test_segments_before_it():
    encoded = oriented(8)
    one = b"\xff\xe2" + struct.pack(">H", 5) + b"abc"
    assert read_orientation(encoded[:2] + 3 * one + encoded[2:]) == 8
    # So that nobody is kept busy.
    assert read_orientation(encoded[:2] + 99 * one + encoded[2:]) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        exif(OTHER_TAG),
        exif((0x0112, 3, 1, 0)),
        exif((0x0112, 3, 1, 9)),
        exif((0x0112, 4, 1, 6)),  # Of another type.
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
    assert decode_upright(encoded).shape == (21, 34, 3)


def test_other_files():
    file = io.BytesIO()
    Image.new("RGB", (4, 6)).save(file, "PNG")
    for encoded in (b"", b"\xff", b"\xff\xd8", b"no image", file.getvalue()):
        assert read_orientation(encoded) == 1


def test_cut_off_or_damaged_anywhere():
    encoded = oriented(6)
    end = encoded.index(b"Exif") + len(exif(OTHER_TAG, OTHER_TAG))
    for length in range(end):
        assert read_orientation(encoded[:length]) == 1, length
    assert read_orientation(encoded[:end]) == 6
    rng = np.random.default_rng(0)
    for _ in range(2000):
        damaged = bytearray(encoded[: end + 20])
        for position in rng.integers(2, len(damaged), 3):
            damaged[position] = rng.integers(256)
        assert read_orientation(bytes(damaged)) in range(1, 9)
