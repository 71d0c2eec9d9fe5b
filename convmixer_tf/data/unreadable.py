"""Why a file is no image that can be decoded, and what to do about it."""

import os
import stat

from convmixer_tf.data.pillow import PHOTO_SUFFIXES
from convmixer_tf.data.pillow import pillow_extensions
from convmixer_tf.files import printable_name

_READ = "JPEG, PNG, WebP, GIF and BMP are read"
_SAVE = f"{_READ}; save it as JPEG"
# ISO media: the brand that stands after `ftyp`.
_BRANDS = {
    "HEIC photograph, as iPhones take them": (
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
    (b"\0\5\x16\7", "It holds macOS' notes on another file, not an image."),
    (b"PK\3\4", "It is a ZIP archive; unpack it."),
    (b"\x1f\x8b", "It is compressed by gzip; unpack it."),
    (b"version https://git-lfs", "It is a Git LFS pointer: `git lfs pull`."),
)


def why_unreadable(source):
    """Says why an image can't be read, in one or two sentences.

    Args:
        source: Path of a file that could not be read, or the bytes of one
            that could not be decoded. Its beginning and its end are looked
            at, nothing is decoded.

    Returns:
        String: what the file is or lacks, and what helps if something does.
    """
    if isinstance(source, bytes):
        return _why_undecodable(source)
    try:
        mode = os.stat(source).st_mode
        if stat.S_ISDIR(mode):
            return "It is a folder."
        if not stat.S_ISREG(mode):  # To open a pipe would be to wait.
            return "It is no regular file."
        with open(source, "rb") as file:
            why = _why_undecodable(file.read())
        # The sender of bytes, to a server, can't install anything.
        return why + _package_for(why)
    except FileNotFoundError:
        if os.path.islink(source):
            return "It is a link to a file that is not there."
        return "There is no such file."
    except PermissionError:
        return "Its permissions forbid reading it."
    except (OSError, ValueError) as error:
        return f"The system says: {getattr(error, 'strerror', None) or error}."


def why_left_out(paths):
    """Says why photographs are not read that have another suffix.

    Args:
        paths: List of paths of files that were left out of a folder.

    Returns:
        String, a space and a sentence on the first photograph, such as a HEIC
        file; empty if there is none.
    """
    for path in paths:
        if os.path.splitext(path)[1].lower() in PHOTO_SUFFIXES:
            return f" {printable_name(path)!r}: {why_unreadable(path)}"
    return ""


def _package_for(why):
    """Names the package that would read a file, if it is not installed."""
    for name, suffix, package in (
        ("HEIC", ".heic", "pillow-heif"),
        ("AVIF", ".avif", "pillow"),
        ("TIFF", ".tiff", "pillow"),
    ):
        if f" {name} " in why and suffix not in pillow_extensions():
            return f" With `pip install {package}` it is read."
    return ""


def _why_undecodable(content):
    if not content:
        return "It is empty."
    if not content.strip(b"\0"):
        return "It holds nothing but zeros: copying it failed. Copy it again."
    if content[4:8] == b"ftyp":
        for what, brands in _BRANDS.items():
            if content[8:12] in brands:
                return f"It is a {what}; {_SAVE}.".replace("a AVIF", "an AVIF")
        return f"It is a video; {_READ}."
    for start, what in _KINDS:
        if content.startswith(start):
            return what
    if content[8:16] == b"WEBPVP8X" and content[20:21] and content[20] & 2:
        return f"It is an animated WebP; {_READ}; save one picture of it."
    whole = _whole(content)
    if whole is not None:
        name, whole = whole
        if not whole:
            return f"It is a {name} that is cut off. Copy it again."
        if name.startswith("BMP with"):
            return f"It is a {name}, which is not read. Save it as PNG."
        return f"It is a {name} that is damaged. Save it again as PNG."
    text = content[:1000].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")) or b"<html" in text:
        return "It is a web page: the download failed. Fetch it again."
    if b"<svg" in text:
        return f"It is an SVG drawing; {_READ}."
    return f"It is no image; {_READ}. It begins with {content[:8]!r}."


def _whole(content):
    """Names a format that is read, and says whether the file has its end."""
    # What some programs add after the end is not missed.
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
