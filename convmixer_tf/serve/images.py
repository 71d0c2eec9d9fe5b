"""Checks and decodes the images that clients send."""

import struct

import tensorflow as tf
from starlette.exceptions import HTTPException

from convmixer_tf.data import decode_image
from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.data.unreadable import why_unreadable

# Encoders write 1 to about 12. Each scan is a pass over all pixels, and a file
# of a few kilobytes can have thousands.
MAX_SCANS = 50
# Blocks of a GIF, with up to 255 bytes each. Each one allocates memory.
MAX_GIF_BLOCKS = 200_000

_SEND = "Send the file itself: curl --data-binary @photo.jpg URL"

# The start of JPEG, PNG, WebP and GIF files in base64, and of a data URL.
_BASE64 = (b"/9j/", b"iVBORw0K", b"UklGR", b"R0lGOD", b"data:")


def check_image(encoded, max_pixels):
    """Checks the header of an image before decoding.

    Args:
        encoded: Bytes of a file.
        max_pixels: Integer, the maximum number of pixels. All frames of a GIF
            are counted because all are decoded.

    Raises:
        HTTPException: If it is rejected, with status 413, 415 or 422.
    """
    found = [x for start, x in _FORMATS.items() if encoded.startswith(start)]
    if not found:
        raise HTTPException(415, _why_not(encoded))
    ((name, measure),) = found
    try:
        width, height, pixels = measure(encoded)
    except (struct.error, IndexError, tf.errors.InvalidArgumentError) as error:
        raise HTTPException(
            422, f"The {name} file has no valid header or ends early. {_SEND}"
        ) from error
    if pixels > max_pixels:
        raise HTTPException(
            413,
            f"The image has {width} x {height} pixels, {pixels} in all. The "
            f"limit is {max_pixels}.",
        )


def _measure_jpeg(encoded):
    # In coded data, DA never follows a byte FF, so markers can be counted.
    if encoded.count(b"\xff\xda") > MAX_SCANS:
        raise HTTPException(413, f"The JPEG has more than {MAX_SCANS} scans.")
    height, width = tf.io.extract_jpeg_shape(encoded).numpy()[:2].tolist()
    return width, height, width * height


def _measure_png(encoded):
    kind, width, height = struct.unpack_from(">4sII", encoded, 12)
    if kind != b"IHDR":
        raise struct.error
    return width, height, width * height


def _measure_webp(encoded):
    """Reads RFC 9649, sections 2.5 to 2.7."""
    (size,) = struct.unpack_from("<I", encoded, 4)
    kind, content = encoded[8:16], encoded[20:30]
    if not kind.startswith(b"WEBP"):  # Audio or video.
        raise HTTPException(415, _why_not(encoded))
    if len(encoded) < 8 + size:
        raise struct.error
    if kind == b"WEBPVP8X":
        flags, width, height = struct.unpack_from("<B3x3s3s", content)
        if flags & 2:
            raise HTTPException(
                415, "The WebP is animated. Send a single picture."
            )
        width, height = (
            1 + int.from_bytes(x, "little") for x in (width, height)
        )
    elif kind == b"WEBPVP8L":
        (bits,) = struct.unpack_from("<xI", content)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"WEBPVP8 ":
        width, height = (
            x & 0x3FFF for x in struct.unpack_from("<6xHH", content)
        )
    else:
        raise struct.error
    return width, height, width * height


def _measure_bmp(encoded):
    width, height = map(abs, struct.unpack_from("<ii", encoded, 18))
    return width, height, width * height


def _measure_gif(encoded):
    """Checks all blocks, because a later frame may be larger."""
    width, height, flags = struct.unpack_from("<HHB", encoded, 6)
    pixels, blocks = 0, 0
    position = 13 + _size_of_colors(flags)
    while position < len(encoded) and encoded[position] in b"\x2c\x21":
        if encoded[position] == 0x2C:  # A frame.
            columns, rows, flags = struct.unpack_from(
                "<HHB", encoded, position + 5
            )
            width, height = max(width, columns), max(height, rows)
            pixels += columns * rows
            position += 11 + _size_of_colors(flags)
        else:  # An extension.
            position += 2
        while length := encoded[position]:
            position += 1 + length
            blocks += 1
        position += 1
        blocks += 1
        if blocks > MAX_GIF_BLOCKS:
            raise HTTPException(
                413, f"The GIF has more than {MAX_GIF_BLOCKS} blocks."
            )
    return width, height, max(pixels, width * height)


def _size_of_colors(flags):
    return 3 << (1 + (flags & 7)) if flags & 0x80 else 0


# By the same first bytes as TensorFlow's decoders.
_FORMATS = {
    b"\xff\xd8\xff": ("JPEG", _measure_jpeg),
    b"\x89PNG\r\n\x1a\n": ("PNG", _measure_png),
    b"RIFF": ("WebP", _measure_webp),
    b"BM": ("BMP", _measure_bmp),
    b"GIF8": ("GIF", _measure_gif),
}


def _why_not(encoded):
    """Explains in one or two sentences why a body is rejected."""
    text = encoded[:64].lstrip()
    if not encoded:
        return f"There is no image: the body is empty. {_SEND}"
    if text.startswith((b"{", b"[")):
        return f"JSON is not accepted. {_SEND}"
    if text.startswith(_BASE64):
        return f"Base64 is not accepted. {_SEND}"
    if text.startswith(b"--"):
        return (
            "A form needs the header Content-Type: multipart/form-data; "
            "boundary=..., which curl -F file=@photo.jpg URL sets."
        )
    return f"{why_unreadable(encoded)} {_SEND}"


class Decoder:
    """Decodes images and applies the evaluation transform.

    Args:
        size: Side of the result, in pixels.
        crop_fraction: Fraction of the shorter side that is kept.
        orientation: As for `data.decode_image`.
        max_pixels: Integer, the maximum number of pixels of an image.
    """

    def __init__(
        self, size: int, crop_fraction: float, orientation: str, max_pixels: int
    ) -> None:
        self._max_pixels = max_pixels
        self._transform = tf.function(
            lambda encoded: resize_and_center_crop(
                decode_image(encoded, orientation), size, crop_fraction
            ),
            input_signature=[tf.TensorSpec((), tf.string)],
            autograph=False,
        ).get_concrete_function()

    def warm_up(self, image):
        """Decodes a file of each format.

        Args:
            image: uint8 array of shape (height, width, 3).
        """
        for encode in (tf.io.encode_jpeg, tf.io.encode_png):
            self(encode(image).numpy())

    def __call__(self, encoded):
        """Decodes an image.

        Args:
            encoded: Bytes of a file.

        Returns:
            uint8 array of shape (size, size, 3).

        Raises:
            HTTPException: If it is rejected or can't be decoded.
        """
        check_image(encoded, self._max_pixels)
        try:
            return self._transform(tf.constant(encoded)).numpy()
        except tf.errors.OpError as error:
            raise HTTPException(
                422, f"The image can't be decoded. {why_unreadable(encoded)}"
            ) from error
