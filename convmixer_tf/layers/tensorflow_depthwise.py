"""Depthwise convolutions in TensorFlow: their gradients, by any form.

This module imports TensorFlow; see `depthwise_plan` for where it is used.
"""

import math

import tensorflow as tf

STRIDES = [1, 1, 1, 1]

_VALUES_IN_CACHE = 2**16  # 256 kB of float32, of both operands each


def native_input_gradient(dy, kernel):
    """Computes the gradient with respect to the input, by TensorFlow's own.

    Args:
        dy: Tensor (batch, height, width, dim), the output's gradient.
        kernel: Tensor (rows, columns, dim, 1) of the same dtype.

    Returns:
        Tensor of the shape of `dy`.
    """
    return tf.nn.depthwise_conv2d_backprop_input(
        tf.shape(dy), kernel, dy, STRIDES, "SAME"
    )


def native_kernel_gradient(x, dy, kernel_size):
    """Computes the gradient with respect to the kernel, by TensorFlow's own.

    On a CPU it takes longer than the rest of the layer together, by an order
    of magnitude for a 9 x 9 kernel.

    Args:
        x: Tensor (batch, height, width, dim).
        dy: Tensor of its shape and dtype, the output's gradient.
        kernel_size: (rows, columns).

    Returns:
        Tensor (rows, columns, dim, 1).
    """
    return tf.nn.depthwise_conv2d_backprop_filter(
        x, (*kernel_size, x.shape[3], 1), dy, STRIDES, "SAME"
    )


def with_gradients(forward, input_gradient, kernel_gradient):
    """Puts a function together with its gradients.

    Args:
        forward: Function of `x` and `kernel`.
        input_gradient: Function of `dy` and `kernel`.
        kernel_gradient: Function of `x`, `dy` and the kernel's size.

    Returns:
        Function of tensors `x` and `kernel`.
    """

    @tf.custom_gradient
    def convolve(x, kernel):
        def gradient(dy):
            size = tuple(kernel.shape[:2])
            return input_gradient(dy, kernel), kernel_gradient(x, dy, size)

        return forward(x, kernel), gradient

    # A custom gradient must not see a variable, only its value.
    return lambda x, kernel: convolve(x, tf.convert_to_tensor(kernel))


def big_filter(x, dy, kernel_size):
    """Computes the gradient with respect to the kernel, fast on a CPU.

    The output's gradient slides over the padded input, as its kernel. Images
    lie side by side as channels, a few at a time, so that they fit the cache:
    all at once takes up to three times as long.

    Args:
        x: Tensor (batch, height, width, dim).
        dy: Tensor of its shape and dtype, the output's gradient.
        kernel_size: (rows, columns).

    Returns:
        Tensor (rows, columns, dim, 1) of the dtype of `x`.
    """
    (rows, columns), dim = kernel_size, x.shape[3]
    above, left = (rows - 1) // 2, (columns - 1) // 2
    padding = [
        [0, 0],
        [above, rows - 1 - above],
        [left, columns - 1 - left],
        [0, 0],
    ]
    # TensorFlow has no fast float16 convolution on a CPU.
    dtype = tf.float32 if x.dtype == tf.float16 else x.dtype
    # Each image's part is summed exactly; the sum over images must be, too.
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
            STRIDES,
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
    """The largest power of two that fits the cache and divides the batch."""
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


def compiled(function):
    """Makes a graph of a function, for timing.

    Args:
        function: Function of tensors.

    Returns:
        Function that returns when the device is done.
    """
    graph = tf.function(function, autograph=False)

    def run(*arguments):
        result = graph(*arguments)
        tf.test.experimental.sync_devices()
        return result

    return run


def device():
    """Describes where TensorFlow computes: (its kind, its name, version)."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return "gpu", details.get("device_name", "gpu"), tf.__version__
    kinds = {d.device_type for d in tf.config.list_logical_devices()}
    kind = "cpu" if kinds == {"CPU"} else "other"
    return kind, kind, tf.__version__
