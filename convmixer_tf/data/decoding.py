"""From the bytes of an image file to pixels.

JPEG is decoded with the accurate inverse cosine transform, which makes the
pixels equal to Pillow's; TensorFlow's default differs by up to 19 grey levels
on photographs and is not faster. PNG, BMP and the first frame of a GIF are
decoded, too; grey and CMYK become RGB, transparency is dropped. The EXIF
orientation is ignored, as in the authors' pipeline: pixels come as stored.
`orientation.decode_upright` is for photographs of users.
"""

import tensorflow as tf

_ACCURATE = "INTEGER_ACCURATE"


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
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])
