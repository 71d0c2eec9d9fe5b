"""Tests the explanations for unreadable image files."""

import io
import os
import re

import pytest
import tensorflow as tf
from PIL import Image

from convmixer_tf.data import decode_image
from convmixer_tf.data.unreadable import why_unreadable
from tests.helpers import asymmetric_image

IMAGE = Image.fromarray(asymmetric_image(40, 31, batch=1)[0])


def encoded(kind, mode="RGB"):
    file = io.BytesIO()
    IMAGE.convert(mode).save(file, kind)
    return file.getvalue()


def animated_webp():
    file = io.BytesIO()
    frames = [IMAGE.transpose(Image.Transpose.ROTATE_180)]
    IMAGE.save(file, "WEBP", save_all=True, append_images=frames)
    return file.getvalue()


def media(brand):
    return b"\0\0\0\x18ftyp" + brand + bytes(4) + b"mif1" + bytes(100)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "It is empty."),
        (bytes(500), "contains only zeros"),
        (
            media(b"heic"),
            "a HEIC photograph, the format of iPhones; .* as JPEG",
        ),
        (media(b"mif1"), "a HEIC photograph"),
        (media(b"avif"), "an AVIF image; .* save it as JPEG"),
        (media(b"crx "), "a camera's raw photograph"),
        (media(b"isom"), "a video"),
        (encoded("TIFF"), "a TIFF image"),
        (encoded("JPEG2000"), "a JPEG 2000 image"),
        (encoded("ICO"), "an icon"),
        (encoded("PDF"), "a PDF"),
        (b"PK\3\4" + bytes(50), "a ZIP archive; unpack it"),
        (b"\n <!DOCTYPE html>\n<html>", "a web page: the download failed"),
        (b"\xef\xbb\xbf<html>", "a web page"),
        (b'<?xml version="1.0"?><svg>', "an SVG drawing"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"hello", r"not an image; .* It starts with b'hello'"),
        (encoded("JPEG")[:-300], "a truncated JPEG. Copy it again"),
        (encoded("PNG")[:-300], "a truncated PNG"),
        (encoded("GIF")[:-300], "a truncated GIF"),
        (encoded("WEBP")[:-300], "a truncated WebP"),
        (encoded("BMP")[:-300], "a truncated BMP"),
        (animated_webp(), "an animated WebP; .* save a single frame"),
        (encoded("BMP", "P"), "a BMP with a palette, which is not supported"),
        (
            encoded("PNG")[:60] + bytes(30) + encoded("PNG")[90:],
            "a damaged PNG. Save it again",
        ),
        (
            encoded("JPEG")[:30] + bytes(60) + encoded("JPEG")[90:],
            "a damaged JPEG",
        ),
    ],
)
def test_what_the_bytes_are(content, why, tmp_path):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(content)
    assert re.search(why, why_unreadable(content))
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    assert why_unreadable(path).startswith(why_unreadable(content))


def test_what_is_no_file(tmp_path):
    assert why_unreadable(tmp_path / "x.png") == "The file does not exist."
    assert why_unreadable(tmp_path) == "It is a folder."
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert why_unreadable(tmp_path / "link").startswith("It is a link to a f")
    os.mkfifo(tmp_path / "pipe")
    assert why_unreadable(tmp_path / "pipe") == "It is not a regular file."
    assert why_unreadable(tmp_path / ("x" * 300)).startswith(
        "The system reports"
    )
    assert why_unreadable("zero\0.png").startswith("The system reports")


def test_what_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "photo.jpg"
    path.write_bytes(b"x")
    monkeypatch.setattr("builtins.open", refuse)
    assert why_unreadable(path) == "You have no permission to read it."
