"""Fast depthwise convolution gradients for TensorFlow on a CPU."""

import math

import tensorflow as tf
from keras import ops

# TensorFlow's own kernel gradient is fast for up to 3 columns. From 4 columns
# on it is ten times slower, for all shapes and dtypes.
FEWEST_COLUMNS = 4

# Computing the input gradient with the flipped kernel takes 0.65 to 0.98 of the
# time if one image's map is in this range, 0.8 to 1.2 below it, 1.3 above it.
_FLIPPED_FROM = 2**18  # values
_FLIPPED_UP_TO = 2**22  # bytes

_VALUES_IN_CACHE = 2**16  # 256 kB of float32 for each operand
_STRIDES = [1, 1, 1, 1]


@tf.custom_gradient
def convolve(x, kernel):
    """Computes a depthwise convolution with "same" padding, for training.

    Args:
        x: Tensor (batch, height, width, dim).
        kernel: Tensor (rows, columns, dim, 1) of the same dtype.

    Returns:
        Tensor of the shape and dtype of `x`.
    """

    def gradient(dy):
        return _input_gradient(dy, kernel), _kernel_gradient(x, dy, kernel)

    return _forward(x, kernel), gradient


def _forward(x, kernel):
    return ops.depthwise_conv(
        x, kernel, padding="same", data_format="channels_last"
    )


def _input_gradient(dy, kernel):
    if _flips(dy, kernel):
        return _forward(dy, tf.reverse(kernel, [0, 1]))
    return tf.nn.depthwise_conv2d_backprop_input(
        tf.shape(dy), kernel, dy, _STRIDES, "SAME"
    )


def _flips(dy, kernel):
    """Whether the flipped kernel is faster than TensorFlow's own gradient."""
    image = dy.shape[1:]
    odd = all(size % 2 for size in kernel.shape[:2])
    if not (odd and image.is_fully_defined()):
        return False
    if dy.dtype not in (tf.float32, tf.bfloat16):
        return False
    values = image.num_elements()
    return values >= _FLIPPED_FROM and (
        values * dy.dtype.size <= _FLIPPED_UP_TO
    )


def _kernel_gradient(x, dy, kernel):
    """Convolves the padded input with the output's gradient as the kernel.

    Images are stacked as channels, a few at a time, so that they fit the cache.
    All images at once take up to three times as long.
    """
    rows, columns, dim, _ = kernel.shape
    above, left = (rows - 1) // 2, (columns - 1) // 2
    padding = [
        [0, 0],
        [above, rows - 1 - above],
        [left, columns - 1 - left],
        [0, 0],
    ]
    # TensorFlow has no fast float16 convolution on a CPU.
    dtype = tf.float32 if x.dtype == tf.float16 else x.dtype
    # Each image is summed in float32, so the sum over images must be, too.
    half = x.dtype in (tf.float16, tf.bfloat16)
    sum_dtype = tf.float32 if half else x.dtype
    images = _images_at_a_time(x.shape)
    x, dy = (_in_groups(operand, images) for operand in (x, dy))
    groups = tf.shape(x)[0]

    def add_group(i, total):
        image = _batch_to_channels(tf.pad(x[i], padding))
        filters = _batch_to_channels(dy[i])
        parts = tf.nn.depthwise_conv2d(
            tf.cast(image[None], dtype),
            tf.cast(filters[..., None], dtype),
            _STRIDES,
            "VALID",
        )
        parts = tf.reshape(parts, (rows, columns, -1, dim))
        return i + 1, total + tf.reduce_sum(tf.cast(parts, sum_dtype), 2)

    _, total = tf.while_loop(
        lambda i, _: i < groups,
        add_group,
        (0, tf.zeros((rows, columns, dim), sum_dtype)),
    )
    return tf.cast(total[..., None], x.dtype)


def _images_at_a_time(shape):
    """Returns the largest power of two that fits the cache and the batch."""
    if not shape.is_fully_defined():
        return 1
    fitting = max(1, _VALUES_IN_CACHE // max(1, math.prod(shape[1:])))
    return math.gcd(shape[0], 2 ** int(math.log2(fitting)))


def _in_groups(x, images):
    return tf.reshape(x, tf.concat([[-1, images], tf.shape(x)[1:]], 0))


def _batch_to_channels(x):
    batch, height, width, dim = tf.unstack(tf.shape(x))
    x = tf.transpose(x, (1, 2, 0, 3))
    return tf.reshape(x, (height, width, batch * dim))
