"""Turning photographs as their EXIF says.

Phones store what the sensor saw and how the phone was held: in a JPEG, the tag
`Orientation` of the EXIF (CIPA DC-008, "Exif 3.0", 4.6.5.1.6), a TIFF
structure in a segment APP1. Whatever is malformed counts as upright.
"""

import struct

import numpy as np
import tensorflow as tf

from convmixer_tf.data.decoding import decode_image

_TAG, _SHORT = 0x0112, 3
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
# The EXIF is the first segment, or comes after a few others. A file of some
# megabytes would have room for a million.
_MAX_SEGMENTS = 64


def decode_upright(encoded):
    """Decodes an image, turned as its EXIF says.

    Args:
        encoded: Scalar string tensor, the bytes of a file.

    Returns:
        uint8 tensor of shape (height, width, 3).
    """
    orientation = tf.numpy_function(_read, [encoded], tf.int32, stateful=False)
    return turn(decode_image(encoded), orientation)


def _read(encoded):
    # A graph gives bytes as such, other code an array of no dimension.
    return np.int32(read_orientation(np.asarray(encoded).item()))


def turn(image, orientation):
    """Brings an image that was stored otherwise upright.

    Args:
        image: Tensor of shape (height, width, channels).
        orientation: Integer tensor, from 1 to 8, what `read_orientation`
            gives.

    Returns:
        Tensor of shape (height, width, channels) or (width, height, channels).
    """

    def when(orientations, step, image):
        needed = tf.reduce_any(tf.equal(orientation, orientations))
        return tf.cond(needed, lambda: step(image), lambda: image)

    # The flips are those of the transposed image.
    image = when((5, 6, 7, 8), tf.image.transpose, image)
    image = when((2, 3, 6, 7), tf.image.flip_left_right, image)
    return when((3, 4, 7, 8), tf.image.flip_up_down, image)


def read_orientation(encoded):
    """Reads how an image is to be turned.

    Args:
        encoded: Bytes of a file.

    Returns:
        Integer from 1 to 8; 1, upright, if it is no JPEG, if it doesn't say,
        or if what it says is malformed.
    """
    try:
        return _read_tag(_find_exif(encoded))
    except struct.error:  # It ends early.
        return 1


def _find_exif(encoded):
    """Returns the TIFF structure of a JPEG's EXIF; empty if it has none."""
    position = 2 if encoded[:2] == b"\xff\xd8" else len(encoded)
    for _ in range(_MAX_SEGMENTS):
        start, kind, size = struct.unpack_from(">BBH", encoded, position)
        # Segments have a size; the image, from FFDA on, is none of them.
        if start != 0xFF or kind < 0xC0 or 0xD0 <= kind <= 0xDA or size < 2:
            break
        content = encoded[position + 4 : position + 2 + size]
        if kind == 0xE1 and content[:6] == b"Exif\0\0":
            return content[6:] if len(content) == size - 2 else b""
        position += 2 + size
    return b""


def _read_tag(tiff):
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None:
        return 1
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    for i in range(count):
        tag, kind, number, value = struct.unpack_from(
            f"{order}HHIH", tiff, start + 2 + 12 * i
        )
        if tag == _TAG:
            known = (kind, number) == (_SHORT, 1) and 1 <= value <= 8
            return value if known else 1
    return 1
