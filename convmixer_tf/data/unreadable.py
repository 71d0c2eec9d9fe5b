"""Explains why an image file can't be decoded and what to do."""

import os
import stat

from convmixer_tf.data.pillow import PHOTO_SUFFIXES
from convmixer_tf.data.pillow import pillow_extensions
from convmixer_tf.files import printable_name

_READ = "JPEG, PNG, WebP, GIF and BMP are supported"
_SAVE = f"{_READ}; save it as JPEG"
# ISO media: the brand after `ftyp`.
_BRANDS = {
    "HEIC photograph, the format of iPhones": (
        *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"),
        *(b"mif1", b"msf1"),
    ),
    "AVIF image": (b"avif", b"avis"),
    "camera's raw photograph": (b"crx ",),
}
_KINDS = (
    (b"II*\0", f"It is a TIFF image or a camera's raw photograph; {_SAVE}."),
    (b"MM\0*", f"It is a TIFF image or a camera's raw photograph; {_SAVE}."),
    (b"\0\0\0\x0cjP  ", f"It is a JPEG 2000 image; {_SAVE}."),
    (b"\0\0\0\x0cJXL ", f"It is a JPEG XL image; {_SAVE}."),
    (b"\xff\x0a", f"It is a JPEG XL image; {_SAVE}."),
    (b"8BPS", f"It is a Photoshop file; {_SAVE}."),
    (b"\0\0\1\0", f"It is an icon; {_SAVE}."),
    (b"%PDF", f"It is a PDF; {_READ}."),
    (b"\0\5\x16\7", "It is a macOS metadata file, not an image."),
    (b"PK\3\4", "It is a ZIP archive; unpack it."),
    (b"\x1f\x8b", "It is compressed by gzip; unpack it."),
    (b"version https://git-lfs", "It is a Git LFS pointer: `git lfs pull`."),
)


def why_unreadable(source):
    """Explains in one or two sentences why an image can't be read.

    Args:
        source: Path of a file that could not be read, or the bytes of a file
            that could not be decoded. Only its beginning and its end are
            examined.

    Returns:
        String: what the file is or lacks, and a remedy if there is one.
    """
    if isinstance(source, bytes):
        return _why_undecodable(source)
    try:
        mode = os.stat(source).st_mode
        if stat.S_ISDIR(mode):
            return "It is a folder."
        if not stat.S_ISREG(mode):  # Opening a pipe would block.
            return "It is not a regular file."
        with open(source, "rb") as file:
            why = _why_undecodable(file.read())
        # A client that sends bytes to a server can't install packages.
        return why + _package_for(why)
    except FileNotFoundError:
        if os.path.islink(source):
            return "It is a link to a file that does not exist."
        return "The file does not exist."
    except PermissionError:
        return "You have no permission to read it."
    except (OSError, ValueError) as error:
        return (
            f"The system reports: {getattr(error, 'strerror', None) or error}."
        )


def why_left_out(paths):
    """Explains why photographs with another suffix are not read.

    Args:
        paths: List of paths of ignored files in a folder.

    Returns:
        String, a space and a sentence about the first photograph, such as a
        HEIC file. Empty if there is none.
    """
    for path in paths:
        if os.path.splitext(path)[1].lower() in PHOTO_SUFFIXES:
            return f" {printable_name(path)!r}: {why_unreadable(path)}"
    return ""


def _package_for(why):
    """Names the package that reads a file, if it is not installed."""
    for name, suffix, package in (
        ("HEIC", ".heic", "pillow-heif"),
        ("AVIF", ".avif", "pillow"),
        ("TIFF", ".tiff", "pillow"),
    ):
        if f" {name} " in why and suffix not in pillow_extensions():
            return f" To read it, `pip install {package}`."
    return ""


def _why_undecodable(content):
    if not content:
        return "It is empty."
    if not content.strip(b"\0"):
        return "It contains only zeros: copying it failed. Copy it again."
    if content[4:8] == b"ftyp":
        for what, brands in _BRANDS.items():
            if content[8:12] in brands:
                return f"It is a {what}; {_SAVE}.".replace("a AVIF", "an AVIF")
        return f"It is a video; {_READ}."
    for start, what in _KINDS:
        if content.startswith(start):
            return what
    if content[8:16] == b"WEBPVP8X" and content[20:21] and content[20] & 2:
        return f"It is an animated WebP; {_READ}; save a single frame."
    whole = _whole(content)
    if whole is not None:
        name, whole = whole
        if not whole:
            return f"It is a truncated {name}. Copy it again."
        if name.startswith("BMP with"):
            return f"It is a {name}, which is not supported. Save it as PNG."
        return f"It is a damaged {name}. Save it again as PNG."
    text = content[:1000].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")) or b"<html" in text:
        return "It is a web page: the download failed. Download it again."
    if b"<svg" in text:
        return f"It is an SVG drawing; {_READ}."
    return f"It is not an image; {_READ}. It starts with {content[:8]!r}."


def _whole(content):
    """Returns the format of a readable file, and whether it is complete."""
    # Some programs add data after the end.
    end = content.rstrip(b"\0\r\n")
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG", b"\xff\xd9" in end[-1024:]
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG", b"IEND" in content[-1024:]
    if content.startswith(b"GIF8"):
        return "GIF", content.rstrip(b"\0").endswith(b";")
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        size = int.from_bytes(content[4:8], "little")
        return "WebP", len(content) >= size + 8
    if content.startswith(b"BM") and content[6:10] == bytes(4):
        if content[28:29] in (b"\1", b"\4", b"\x08"):
            return "BMP with a palette", True
        return "BMP", len(content) >= int.from_bytes(content[2:6], "little")
    return None
