"""Image resizing that equals Pillow's, as TensorFlow graph operations.

`tf.image.resize(antialias=True)` is close to Pillow's result but not equal, and
it is slow on a CPU. A separable resize consists of two matrix products with
banded matrices. Each block of output columns (then rows) needs few input
columns, and a dense product over these runs at full speed.
"""

import numpy as np
import tensorflow as tf

# Output columns per matrix product. Larger blocks compute more zeros of the
# band. Smaller blocks dispatch more operations.
_BLOCK = 32


def resample(image, full_size, offset, size, cubic, flip=False):
    """Resizes an image as Pillow does and returns a square window of it.

    Both filters are antialiased: they become wider when the image shrinks.
    Columns are resampled before rows, and the intermediate result is rounded to
    integers, as in Pillow up to version 12. Version 13 starts with the rows for
    some tall images, which changes pixels by 0.2 gray levels on average.

    Args:
        image: uint8 tensor of shape (height, width, 3).
        full_size: Two numbers, height and width of the whole resized image,
            in pixels.
        offset: Two numbers, the top row and left column of the window, in
            pixels of the resized image.
        size: Python integer, side of the window, in pixels.
        cubic: Boolean or scalar tensor, bicubic (a = -0.5) or bilinear.
        flip: Boolean or scalar tensor, whether to flip horizontally.

    Returns:
        uint8 tensor of shape (size, size, 3).
    """
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    top, row_taps, row_weights = _bands(
        height, full_size[0], offset[0], size, cubic, False
    )
    start, taps, weights = _bands(
        width, full_size[1], offset[1], size, cubic, flip
    )
    # The window may need few rows and columns of a long image.
    left, right = tf.reduce_min(start), tf.reduce_max(start) + taps
    image = tf.convert_to_tensor(image)
    image = image[top[0] : top[-1] + row_taps, left:right]

    planes = tf.transpose(tf.cast(image, tf.float32), [2, 0, 1])
    lines = tf.reshape(planes, [-1, tf.shape(image)[1]])
    columns = [
        tf.matmul(lines[:, first : first + taps], matrix, transpose_b=True)
        for first, matrix in zip(
            tf.unstack(start - left), tf.unstack(weights), strict=True
        )
    ]
    columns = tf.floor(_clip(tf.concat(columns, axis=1)[:, :size]))
    planes = tf.reshape(columns, [3, -1, size])

    needed = (top - top[0])[:, None] + tf.range(row_taps)
    slabs = tf.gather(planes, needed, axis=1)
    rows = tf.reshape(tf.matmul(row_weights, slabs), [3, -1, size])[:, :size]
    return tf.cast(tf.transpose(_clip(rows), [1, 2, 0]), tf.uint8)


def _clip(x):
    """Clips to [0, 255] and adds 1/2, so that truncation rounds."""
    return tf.clip_by_value(x, 0.0, 255.0) + 0.5


def _bands(length, full_length, offset, size, cubic, flip):
    """Computes the non-zero blocks of the matrix that resamples one axis.

    Returns:
        The first input position of each block, int32 of shape (blocks,); the
        number of input positions of a block, an int32 scalar; and the weights,
        float32 of shape (blocks, outputs per block, inputs per block).
    """
    blocks = -(-size // _BLOCK)
    block = -(-size // blocks)
    scale = length / tf.cast(full_length, tf.float32)
    # A filter is as wide as its kernel, or wider if the image shrinks.
    stretch = tf.maximum(scale, 1.0)
    support = tf.where(cubic, 2.0, 1.0) * stretch

    output = np.arange(blocks * block, dtype="float32").reshape(blocks, block)
    output = tf.where(flip, size - 1 - output, output)
    center = (tf.cast(offset, tf.float32) + output + 0.5) * scale
    taps = tf.math.ceil((block - 1) * scale + 2 * support) + 1
    taps = tf.minimum(taps, length)
    start = tf.floor(tf.reduce_min(center, axis=1) - support)
    start = tf.clip_by_value(start, 0.0, length - taps)

    position = (start[:, None] + tf.range(taps) + 0.5) / stretch
    distance = position[:, None, :] - (center / stretch)[:, :, None]
    weights = _kernel(tf.abs(distance), cubic)
    weights /= tf.reduce_sum(weights, axis=-1, keepdims=True)
    return tf.cast(start, tf.int32), tf.cast(taps, tf.int32), weights


def _kernel(x, cubic):
    """The triangle, or the cubic convolution kernel with a = -0.5."""

    def cubic_kernel():
        near = (1.5 * x - 2.5) * x * x + 1.0
        far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
        return tf.where(x < 1.0, near, tf.where(x < 2.0, far, 0.0))

    return tf.cond(
        tf.cast(cubic, tf.bool), cubic_kernel, lambda: tf.nn.relu(1.0 - x)
    )
