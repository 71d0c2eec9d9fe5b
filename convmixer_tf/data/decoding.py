"""Decodes image files, for all parts of the package.

JPEG is decoded with the accurate inverse cosine transform, so that the pixels
equal Pillow's. TensorFlow's default differs by up to 19 gray levels on
photographs and is not faster. PNG, WebP, BMP and the first frame of a GIF are
also decoded. Gray and CMYK images are converted to RGB, and transparency is
dropped.
"""

import tensorflow as tf

from convmixer_tf.data.orientation import read_orientation
from convmixer_tf.data.orientation import stored_box
from convmixer_tf.data.orientation import turn
from convmixer_tf.data.orientation import upright_size
from convmixer_tf.validation import check_orientation

# The default rotates photographs as their EXIF says.
ORIENTATION = "exif"

_ACCURATE = "INTEGER_ACCURATE"

# A BMP palette: blue, green, red and nothing, for each index.
_GRAY_PALETTE = bytes(x for i in range(256) for x in (i, i, i, 0))


def decode_image(
    encoded: tf.Tensor | bytes, orientation: str = ORIENTATION
) -> tf.Tensor:
    """Decodes an image.

    Args:
        encoded: Scalar string tensor, the bytes of a file.
        orientation: `"exif"` or `None` rotates the image as the EXIF of a JPEG,
            PNG or WebP says. `"stored"` returns the pixels as stored, like the
            ImageNet pipelines of timm and of the authors.

    Returns:
        uint8 tensor of shape (height, width, 3).

    Raises:
        ValueError: If `orientation` is neither of the two.
        tf.errors.InvalidArgumentError: If the file can't be decoded.
    """
    check_orientation(orientation)
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method=_ACCURATE),
        lambda: _decode_other(encoded),
    )
    if orientation != "stored":
        image = turn(image, read_orientation(encoded))
    return tf.ensure_shape(image, [None, None, 3])


def decode_crop(encoded, choose_box, orientation=ORIENTATION):
    """Decodes a part of an image. For a JPEG, only its blocks are decoded.

    Args:
        encoded: Scalar string tensor, the bytes of a file.
        choose_box: Function `(height, width) -> (top, left, rows, columns)`,
            int32 tensors, in pixels of the image that `decode_image` returns.
        orientation: As in `decode_image`.

    Returns:
        uint8 tensor of shape (rows, columns, 3).

    Raises:
        ValueError: As `decode_image`.
        tf.errors.InvalidArgumentError: As `decode_image`.
    """
    check_orientation(orientation)
    turned = None
    if orientation != "stored":
        turned = read_orientation(encoded)

    def box(height, width):
        if turned is None:
            return choose_box(height, width)
        chosen = choose_box(*upright_size(height, width, turned))
        return stored_box(chosen, height, width, turned)

    def crop_jpeg():
        shape = tf.io.extract_jpeg_shape(encoded)
        return tf.io.decode_and_crop_jpeg(
            encoded,
            tf.stack(box(shape[0], shape[1])),
            channels=3,
            dct_method=_ACCURATE,
        )

    def crop_other():
        image = _decode_other(encoded)
        shape = tf.shape(image)
        top, left, rows, columns = box(shape[0], shape[1])
        return image[top : top + rows, left : left + columns]

    image = tf.cond(tf.io.is_jpeg(encoded), crop_jpeg, crop_other)
    if turned is not None:
        image = turn(image, turned)
    return tf.ensure_shape(image, [None, None, 3])


def _decode_other(encoded):
    is_bmp = tf.strings.substr(encoded, 0, 2) == b"BM"
    fit = tf.cond(is_bmp, lambda: _has_no_palette(encoded), lambda: True)
    refused = "A BMP with a palette. Save it as PNG, or with 24 bits a pixel."
    with tf.control_dependencies([tf.debugging.Assert(fit, [refused])]):
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def _has_no_palette(encoded):
    """Returns whether TensorFlow reads a BMP correctly: it ignores palettes.

    With a palette, the values that it reads as gray levels are indices.
    """
    depth = tf.strings.substr(encoded, 28, 1)
    palette = tf.strings.substr(encoded, 54, len(_GRAY_PALETTE))
    return (depth != b"\x08") | (palette == _GRAY_PALETTE)
