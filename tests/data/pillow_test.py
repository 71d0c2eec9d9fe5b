"""Tests files that Pillow reads."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convmixer_tf.data import decode_image
from convmixer_tf.data import open_dataset
from convmixer_tf.data import pillow
from convmixer_tf.data import read_images
from convmixer_tf.data.samples import open_files
from convmixer_tf.data.unreadable import why_unreadable
from convmixer_tf.inference.image_files import find_images
from tests.helpers import asymmetric_image

PIXELS = asymmetric_image(40, 31, batch=1)[0]


def encoded(kind, mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("big_endian", [False, True])
def test_a_tiff_is_read_to_the_bit(big_endian):
    content = encoded("TIFF", big_endian=big_endian)
    image = decode_image(pillow.with_pillow(tf.constant(content)))
    np.testing.assert_array_equal(image, PIXELS)


def test_an_avif_is_read():
    if ".avif" not in pillow.pillow_extensions():
        pytest.skip("This Pillow was built without AVIF.")
    content = encoded("AVIF")
    image = decode_image(pillow.with_pillow(tf.constant(content)))
    with Image.open(io.BytesIO(content)) as expected:
        np.testing.assert_array_equal(image, np.asarray(expected))


def test_it_is_turned_once():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = pillow.with_pillow(tf.constant(encoded("TIFF", exif=exif)))
    np.testing.assert_array_equal(
        decode_image(content), np.rot90(PIXELS, axes=(1, 0))
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_others_stay_as_they_are(kind):
    content = encoded(kind)
    assert pillow.with_pillow(tf.constant(content)).numpy() == content


@pytest.mark.parametrize("content", [b"", b"II", b"\0\0\0\x18ftypisom1234"])
def test_what_is_no_such_file_stays_as_it_is(content):
    assert pillow.with_pillow(tf.constant(content)).numpy() == content


@pytest.mark.parametrize(
    "content",
    [
        encoded("TIFF")[:1000],
        encoded("TIFF", "F"),
        b"MM\0*" + bytes(20),
        b"\0\0\0\x18ftypavif" + bytes(20),
    ],
)
def test_what_is_damaged_or_of_more_bits_is_refused(content):
    with pytest.raises(tf.errors.OpError):
        tf.function(pillow.with_pillow)(tf.constant(content))


@pytest.mark.slow
def test_folders_have_them(tmp_path):
    for name, kind in (("a.tif", "TIFF"), ("b.png", "PNG")):
        folder = tmp_path / "train" / name[0]
        folder.mkdir(parents=True)
        (folder / name).write_bytes(encoded(kind))
    images, labels = read_images(open_dataset(tmp_path, "train"), 16)
    assert labels.tolist() == [0, 1]
    np.testing.assert_array_equal(images[0], images[1])
    assert len(find_images([tmp_path])) == 2


def test_zeros_at_the_end_are_kept_in_a_graph():
    file = io.BytesIO()
    Image.fromarray(np.zeros_like(PIXELS)).save(file, "TIFF")
    assert file.getvalue().endswith(b"\0")
    graph = tf.function(pillow.with_pillow)
    np.testing.assert_array_equal(
        decode_image(graph(tf.constant(file.getvalue()))), 0 * PIXELS
    )


def test_a_heic_is_read(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    shades = np.linspace(0, 255, 40 * 30).reshape(40, 30)
    pixels = np.uint8(np.stack([shades, 255 - shades, shades / 2], -1))
    path = str(tmp_path / "photo.heic")
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(path, quality=100)
    images, _ = read_images(open_files([path]), 30, crop_fraction=1.0)
    error = np.abs(np.float32(images[0]) - pixels[5:35])
    assert error.mean() < 5


@pytest.fixture
def without_pillow(monkeypatch):
    monkeypatch.setattr(pillow, "_readable", tuple)


def test_without_pillow_nothing_changes(without_pillow, tmp_path):
    content = encoded("TIFF")
    assert pillow.with_pillow(content) is content
    assert pillow.pillow_extensions() == ()
    path = tmp_path / "photo.tif"
    path.write_bytes(content)
    assert why_unreadable(path).endswith("To read it, `pip install pillow`.")
    with pytest.raises(FileNotFoundError, match="no images"):
        find_images([tmp_path])


def test_heic_names_its_package(tmp_path):
    path = tmp_path / "photo.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    advice = "To read it, `pip install pillow-heif`."
    installed = ".heic" in pillow.pillow_extensions()
    assert why_unreadable(path).endswith(advice) is not installed
