"""Reads HEIC, AVIF and TIFF files with Pillow. TensorFlow can't read them.

Pillow itself reads TIFF and AVIF. HEIC needs the package pillow-heif. Both
packages are optional.
"""

import functools
import io

import tensorflow as tf

# HEIC, AVIF and TIFF files. `ftyp` and the brand follow a length.
_KINDS = {
    ".heic": rb"\C{4}ftyp(?:hei[cmsx]|hev[cmsx]|mif1|msf1)\C*",
    ".avif": rb"\C{4}ftypavi[fs]\C*",
    ".tiff": rb"(?:II\*\x00|MM\x00\*)\C*",
}
_SUFFIXES = {
    ".heic": (".heic", ".heif"),
    ".avif": (".avif",),
    ".tiff": (".tif", ".tiff"),
}
PHOTO_SUFFIXES = tuple(x for kind in _SUFFIXES.values() for x in kind)
# Modes with 8 bits a channel. Pillow's RGB would truncate others.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


@functools.cache
def _readable():
    """Lists the readable kinds of files, keys of `_KINDS`."""
    try:
        from PIL import Image
    except ImportError:
        return ()
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
    except ImportError:
        pass
    known = Image.registered_extensions()
    formats = {kind: known.get(kind) for kind in _KINDS}
    return tuple(k for k, name in formats.items() if name in Image.OPEN)


def pillow_extensions() -> tuple[str, ...]:
    """Lists the suffixes of files that only Pillow reads.

    Returns:
        Tuple of strings in lower case, empty without Pillow.
    """
    return tuple(x for kind in _readable() for x in _SUFFIXES[kind])


def with_pillow(encoded: tf.Tensor) -> tf.Tensor:
    """Converts a HEIC, AVIF or TIFF file to PNG, if Pillow can read it.

    Args:
        encoded: Scalar string tensor, the bytes of a file.

    Returns:
        Scalar string tensor: the PNG, with the EXIF of the file; or `encoded`
        if the file has another format or Pillow is not installed. Pillow
        rotates TIFF and HEIC files itself and removes the orientation from
        their EXIF.

    Raises:
        tf.errors.OpError: When a graph runs, if such a file is damaged or has
            more than 8 bits a channel. Outside of a graph, it is an `OSError`
            or a `ValueError`.
    """
    if not _readable():
        return encoded
    pattern = b"|".join(_KINDS[kind] for kind in _readable())
    start = tf.strings.substr(encoded, 0, 12)
    found = tf.strings.regex_full_match(start, b"(?s)(?:" + pattern + b")")
    converted = tf.cond(
        found,
        lambda: tf.numpy_function(_to_png, [encoded], tf.string),
        lambda: encoded,
    )
    return tf.ensure_shape(converted, [])


def _to_png(encoded):
    from PIL import Image

    # In a graph, `encoded` is bytes; an array would drop zeros at the end.
    # Outside of a graph, it is an array of objects.
    if not isinstance(encoded, bytes):
        encoded = encoded.item()
    with Image.open(io.BytesIO(encoded)) as image:
        if image.mode not in _MODES:
            raise ValueError(f"The image has pixels of mode {image.mode}.")
        file = io.BytesIO()
        pixels = image.convert("RGB")
        # After `convert`, which removes an orientation that Pillow applied.
        pixels.save(file, "PNG", exif=image.getexif(), compress_level=1)
    return file.getvalue()
