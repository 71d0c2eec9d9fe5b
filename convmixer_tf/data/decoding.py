"""From the bytes of an image file to pixels.

JPEG is decoded with the accurate inverse cosine transform, which makes the
pixels equal to Pillow's; TensorFlow's default differs by up to 19 grey levels
on photographs and is not faster. PNG, WebP, BMP and the first frame of a GIF
are decoded, too; grey and CMYK become RGB, transparency is dropped. The EXIF
orientation is ignored, as in the authors' pipeline: pixels come as stored.
`orientation.decode_upright` is for photographs of users.
"""

import tensorflow as tf

_ACCURATE = "INTEGER_ACCURATE"

# Of a BMP: blue, green, red and nothing, for each index.
_GREY_PALETTE = bytes(x for i in range(256) for x in (i, i, i, 0))


def decode_image(encoded):
    """Decodes an image.

    Args:
        encoded: Scalar string tensor, the bytes of a file.

    Returns:
        uint8 tensor of shape (height, width, 3).
    """
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method=_ACCURATE),
        lambda: _decode_other(encoded),
    )


def decode_crop(encoded, choose_box):
    """Decodes a part of an image; of a JPEG, only the blocks it lies in.

    Args:
        encoded: Scalar string tensor, the bytes of a file.
        choose_box: Function `(height, width) -> (top, left, rows, columns)`,
            int32 tensors.

    Returns:
        uint8 tensor of shape (rows, columns, 3).
    """

    def crop_jpeg():
        shape = tf.io.extract_jpeg_shape(encoded)
        box = choose_box(shape[0], shape[1])
        return tf.io.decode_and_crop_jpeg(
            encoded, tf.stack(box), channels=3, dct_method=_ACCURATE
        )

    def crop_other():
        image = _decode_other(encoded)
        top, left, rows, columns = choose_box(
            tf.shape(image)[0], tf.shape(image)[1]
        )
        return image[top : top + rows, left : left + columns]

    image = tf.cond(tf.io.is_jpeg(encoded), crop_jpeg, crop_other)
    return tf.ensure_shape(image, [None, None, 3])


def _decode_other(encoded):
    is_bmp = tf.strings.substr(encoded, 0, 2) == b"BM"
    fit = tf.cond(is_bmp, lambda: _has_no_palette(encoded), lambda: True)
    refused = "A BMP with a palette. Save it as PNG, or with 24 bits a pixel."
    with tf.control_dependencies([tf.debugging.Assert(fit, [refused])]):
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def _has_no_palette(encoded):
    """Says whether TensorFlow reads a BMP as it should be: it skips palettes.

    What it takes for a shade of grey is an index if there is one.
    """
    depth = tf.strings.substr(encoded, 28, 1)
    palette = tf.strings.substr(encoded, 54, len(_GREY_PALETTE))
    return (depth != b"\x08") | (palette == _GREY_PALETTE)
