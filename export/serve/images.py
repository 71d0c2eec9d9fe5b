"""From the bytes that a client sent to pixels, if they are an image."""

import struct

import tensorflow as tf

from convmixer_tf.data import decode_image
from convmixer_tf.data import resize_and_center_crop
from convmixer_tf.data import why_unreadable

_JPEG = b"\xff\xd8\xff"
_JPEG_SCAN = b"\xff\xda"
_PNG = b"\x89PNG\r\n\x1a\n"
# Encoders write 1 to about 12. Each is a pass over all pixels, and a file of
# a few kilobytes has room for thousands.
MAX_SCANS = 50


class ImageError(ValueError):
    """What was sent is no image that the service takes."""


class UnknownFormatError(ImageError):
    """It is neither JPEG nor PNG."""


class TooManyPixelsError(ImageError):
    """It would take more memory or time than is allowed."""


class DamagedImageError(ImageError):
    """It can't be decoded."""


def check_image(encoded, max_pixels):
    """Looks at the header of an image, before any pixel is decoded.

    Args:
        encoded: Bytes of a file.
        max_pixels: Integer, the most pixels it may have.

    Raises:
        ImageError: If it is not to be decoded.
    """
    height, width = _read_size(encoded)
    if height * width > max_pixels:
        raise TooManyPixelsError(
            f"The image has {width} x {height} pixels, more than {max_pixels}."
        )
    # Within coded data no byte FF is followed by DA, so markers can be counted.
    if encoded.startswith(_JPEG) and encoded.count(_JPEG_SCAN) > MAX_SCANS:
        raise TooManyPixelsError(f"The JPEG has more than {MAX_SCANS} scans.")


def _read_size(encoded):
    if encoded.startswith(_JPEG):
        try:
            return tf.io.extract_jpeg_shape(encoded).numpy()[:2].tolist()
        except tf.errors.InvalidArgumentError as error:
            raise DamagedImageError("The JPEG has no valid header.") from error
    if encoded.startswith(_PNG):
        if len(encoded) < 24 or encoded[12:16] != b"IHDR":
            raise DamagedImageError("The PNG has no valid header.")
        width, height = struct.unpack(">II", encoded[16:24])
        return height, width
    raise UnknownFormatError(
        "The body must be a JPEG or PNG file, as it is: "
        "curl --data-binary @photo.jpg. "
        f"Received: {len(encoded)} bytes, which begin with {encoded[:8]!r}"
    )


class Decoder:
    """Decodes images and brings them to a model's size, as in evaluation.

    Args:
        size: Side of the result, in pixels.
        crop_fraction: Part of the shorter side that is kept.
        orientation: As for `data.decode_image`.
        max_pixels: Integer, the most pixels an image may have.
    """

    def __init__(self, size, crop_fraction, orientation, max_pixels):
        self._max_pixels = max_pixels
        self._transform = tf.function(
            lambda encoded: resize_and_center_crop(
                decode_image(encoded, orientation), size, crop_fraction
            ),
            input_signature=[tf.TensorSpec((), tf.string)],
            autograph=False,
        ).get_concrete_function()

    def warm_up(self, image):
        """Decodes a file of each kind.

        Args:
            image: uint8 tensor of shape (height, width, 3).
        """
        for encode in (tf.io.encode_jpeg, tf.io.encode_png):
            self(encode(image).numpy())

    def __call__(self, encoded):
        """Decodes an image.

        Args:
            encoded: Bytes of a file.

        Returns:
            uint8 tensor of shape (size, size, 3).

        Raises:
            ImageError: If it is not taken, or can't be decoded.
        """
        check_image(encoded, self._max_pixels)
        try:
            return self._transform(tf.constant(encoded))
        except tf.errors.OpError as error:
            raise DamagedImageError(
                f"The image can't be decoded. {why_unreadable(encoded)}"
            ) from error
