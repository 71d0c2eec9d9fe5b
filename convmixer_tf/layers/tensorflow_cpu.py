"""What TensorFlow computes slowly on a CPU, computed fast.

Same numbers, other operations: what each gains is in BUILD.md, "Speed". This
module imports TensorFlow; see `acceleration` for where it is used.
"""

import math

import tensorflow as tf

_HALF = (tf.float16, tf.bfloat16)
_VALUES_IN_CACHE = 2**16  # 256 kB of float32, of both operands each


def only_cpus():
    """Tells whether TensorFlow sees no other devices than CPUs."""
    devices = tf.config.list_logical_devices()
    return all(device.device_type == "CPU" for device in devices)


def depthwise_conv2d(x, kernel):
    """Computes a depthwise convolution, `SAME`, whose gradients are fast.

    TensorFlow's own gradient with respect to the kernel takes longer than the
    rest of the layer together, by an order of magnitude for a 9 x 9 kernel.

    Args:
        x: Tensor (batch, height, width, dim).
        kernel: Tensor (rows, columns, dim, 1) of the same dtype.

    Returns:
        Tensor of the shape of `x`.
    """
    # A custom gradient must not see a variable, only its value.
    return _depthwise_conv2d(x, tf.convert_to_tensor(kernel))


@tf.custom_gradient
def _depthwise_conv2d(x, kernel):
    strides = [1, 1, 1, 1]

    def gradient(dy):
        dx = tf.nn.depthwise_conv2d_backprop_input(
            tf.shape(x), kernel, dy, strides, "SAME"
        )
        return dx, _kernel_gradient(x, dy, kernel.shape)

    return tf.nn.depthwise_conv2d(x, kernel, strides, "SAME"), gradient


def _kernel_gradient(x, dy, kernel_shape):
    """The output's gradient slides over the padded input, as its kernel.

    Images lie side by side as channels, a few at a time, so that they fit the
    cache: all at once takes up to three times as long.
    """
    rows, columns, dim, _ = kernel_shape
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
    sum_dtype = tf.float32 if x.dtype in _HALF else x.dtype
    images = _images_at_a_time(x.shape)
    x, dy = (_in_groups(operand, images) for operand in (x, dy))
    groups = tf.shape(x)[0]

    def add_group(i, total):
        image = _batch_to_channels(tf.pad(x[i], padding))
        filters = _batch_to_channels(dy[i])
        parts = tf.nn.depthwise_conv2d(
            tf.cast(image[None], dtype),
            tf.cast(filters[..., None], dtype),
            [1, 1, 1, 1],
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


def gelu(x):
    """Computes the exact GELU: x times the normal distribution's CDF.

    `tf.nn.gelu` goes through `erfc`, which TensorFlow does not vectorise, and
    computes in half precision where `x` is. As PyTorch's, this one goes
    through `erf`, in single precision: the absolute error stays below 1e-6.

    Args:
        x: Tensor.

    Returns:
        Tensor of the same shape; float32 for a half-precision `x`, otherwise
        of its dtype.
    """
    x = _at_least_single(x)
    # Written so that the TFLite converter recognises its GELU.
    return 0.5 * x * (1 + tf.math.erf(x * math.sqrt(0.5)))


@tf.function(jit_compile=True, autograph=False)
def _fused_gelu(x):
    y = gelu(x)
    # XLA's erf stops just short of -1, and x may be large.
    return tf.cast(tf.where(x < -9, tf.zeros_like(y), y), x.dtype)


@tf.function(jit_compile=True, autograph=False)
def _fused_gelu_gradient(x, dy):
    dtype, x = x.dtype, _at_least_single(x)
    distribution = 0.5 + 0.5 * tf.math.erf(x * math.sqrt(0.5))
    density = tf.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    slope = distribution + x * density
    return tf.cast(tf.cast(dy, x.dtype) * slope, dtype)


def _at_least_single(x):
    return tf.cast(x, tf.float32) if x.dtype in _HALF else x


@tf.custom_gradient
def trained_gelu(x):
    """Computes the exact GELU, for training.

    XLA makes one loop over memory of it, and one of its gradient, for which
    only `x` is kept.

    Args:
        x: Tensor.

    Returns:
        Tensor of the same shape and dtype.
    """
    return _fused_gelu(x), lambda dy: _fused_gelu_gradient(x, dy)


def normalize_batch(x, gamma, beta, epsilon):
    """Normalises a batch by its own statistics, in one operation.

    Args:
        x: Tensor (batch, height, width, dim), single precision or half.
        gamma: Tensor (dim,), float32, the scale.
        beta: Tensor (dim,), float32, the offset.
        epsilon: Float, added to the variance.

    Returns:
        The normalised tensor, of the shape and dtype of `x`, and the mean and
        the (biased) variance, (dim,), float32, which pass no gradient.
    """
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=gamma,
        offset=beta,
        mean=tf.zeros([0]),
        variance=tf.zeros([0]),
        epsilon=epsilon,
        is_training=True,
    )
    # The operation gives the unbiased variance, with n - 1 as divisor.
    n = tf.cast(tf.size(x) // tf.shape(x)[-1], tf.float32)
    variance *= (n - 1) / n
    return outputs, tf.stop_gradient(mean), tf.stop_gradient(variance)
