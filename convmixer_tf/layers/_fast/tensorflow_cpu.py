"""Faster versions of operations that TensorFlow computes slowly on a CPU.

The results are the same. recipes/results/README.md, "Single operations on a
CPU", has the speed of each.
"""

import functools
import math

import keras
import tensorflow as tf
from keras import ops

from convmixer_tf.layers._fast import tensorflow_depthwise

_HALF = (tf.float16, tf.bfloat16)

# The normal distribution's CDF at x is (1 + tanh(x g(x^2))) / 2 with g(u) =
# atanh(erf(sqrt(u / 2))) / sqrt(u). This parabola was fitted to g. The error of
# x times the CDF is at most 2.6e-5, a hundredth of bfloat16's rounding error at
# 1.
_PARABOLA = (0.79750756, 0.037005940, -0.00035156457)
_FITTED_UP_TO = 5.0


def only_cpus():
    """Returns whether TensorFlow sees no other devices than CPUs."""
    devices = tf.config.list_logical_devices()
    return all(device.device_type == "CPU" for device in devices)


def gelu(x):
    """Computes the exact GELU: x times the normal distribution's CDF.

    `tf.nn.gelu` uses `erfc`, which TensorFlow does not vectorize, and computes
    in half precision if `x` has half precision. Like PyTorch, this function
    uses `erf` in single precision. The absolute error is below 1e-6.

    Args:
        x: Tensor.

    Returns:
        Tensor of the same shape. It is float32 if `x` has half precision;
        otherwise it has the dtype of `x`.
    """
    x = _at_least_single(x)
    # The TFLite converter recognizes this form as a GELU.
    return 0.5 * x * (1 + tf.math.erf(x * math.sqrt(0.5)))


def _clipped_gelu(x):
    y = gelu(x)
    # XLA's erf never quite reaches -1, and x may be large.
    return tf.where(x < -9, tf.zeros_like(y), y)


@tf.function(jit_compile=True, autograph=False)
def _fused_gelu(x):
    return _round(_clipped_gelu(x), x.dtype)


@tf.function(jit_compile=True, autograph=False)
def _fused_gelu_gradient(x, dy):
    dtype, x = x.dtype, _at_least_single(x)
    distribution = 0.5 + 0.5 * tf.math.erf(x * math.sqrt(0.5))
    density = tf.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    slope = distribution + x * density
    return _round(tf.cast(dy, x.dtype) * slope, dtype)


def _at_least_single(x):
    return tf.cast(x, tf.float32) if x.dtype in _HALF else x


def _round(x, dtype):
    return _to_bfloat16(x) if dtype == tf.bfloat16 else tf.cast(x, dtype)


@tf.custom_gradient
def _to_bfloat16(x):
    # XLA's own rounding takes up to half of a loop's time. This one rounds to
    # nearest, ties away from zero. It keeps NaNs, except those with all bits
    # set; GPUs produce these, CPU arithmetic does not.
    bits = tf.bitcast(x, tf.uint32) + 0x8000
    bits = tf.cast(tf.bitwise.right_shift(bits, 16), tf.uint16)
    return tf.bitcast(bits, tf.bfloat16), lambda dy: tf.cast(dy, x.dtype)


def _roundable(x):
    """Replaces the NaNs that `_to_bfloat16` would turn into zeros."""
    return tf.where(tf.math.is_nan(x), math.nan, x)


@tf.custom_gradient
def trained_gelu(x):
    """Computes the exact GELU, for training.

    XLA compiles it to one loop over memory, and its gradient to another. Only
    `x` is kept for the gradient.

    Args:
        x: Tensor.

    Returns:
        Tensor of the same shape and dtype.
    """
    return _fused_gelu(x), lambda dy: _fused_gelu_gradient(x, dy)


def convolve(x, kernel, conv, training):
    """Computes a convolution for training, without its bias.

    Args:
        x: Tensor, a batch of images.
        kernel: Tensor of the dtype of `x`, the kernel of `conv`.
        conv: A `keras.layers.DepthwiseConv2D` with "same" padding, or a
            `Conv2D` of square patches that do not overlap, including 1 x 1.
        training: Boolean, whether gradients will be computed.

    Returns:
        Tensor, or `None` where Keras' own is as fast: in inference, for a
        frozen layer, for depthwise kernels of few columns, and for other
        convolutions with channels first.
    """
    if not (training and conv.trainable):
        return None
    first = conv.data_format == "channels_first"
    if not isinstance(conv, keras.layers.DepthwiseConv2D):
        return None if first else _patchwise(x, kernel)
    if conv.kernel_size[1] < tensorflow_depthwise.FEWEST_COLUMNS:
        return None
    if not first:
        return tensorflow_depthwise.convolve(x, kernel)
    x = tf.transpose(x, (0, 2, 3, 1))
    x = tensorflow_depthwise.convolve(x, kernel)
    return tf.transpose(x, (0, 3, 1, 2))


def _patchwise(x, kernel):
    """Convolves patches that do not overlap.

    The gradients are computed as matrix products, which TensorFlow computes
    faster than the gradients of a convolution.
    """
    size, _, _, filters = kernel.shape
    if size > 1:
        # Pixels beyond the last whole patch are not used.
        height, width = (tf.shape(x)[i] // size * size for i in (1, 2))
        x = tf.nn.space_to_depth(x[:, :height, :width], size)
        kernel = tf.reshape(kernel, (1, 1, -1, filters))
    return _pointwise(x, kernel)


@tf.custom_gradient
def _pointwise(x, kernel):
    *_, dim, filters = kernel.shape

    def gradient(dy):
        rows = tf.reshape(dy, (-1, filters))
        dx = tf.matmul(rows, kernel[0, 0], transpose_b=True)
        dkernel = tf.matmul(tf.reshape(x, (-1, dim)), rows, transpose_a=True)
        return tf.reshape(dx, tf.shape(x)), dkernel[None, None]

    return tf.nn.conv2d(x, kernel, 1, "VALID"), gradient


@tf.custom_gradient
def add_bias(x, bias):
    """Adds a bias. Its gradient is summed in float32 in bfloat16 training.

    Args:
        x: Tensor (batch, height, width, dim).
        bias: Tensor (dim,).

    Returns:
        Tensor of the shape of `x`.
    """

    def gradient(dy):
        # A matrix product sums in single precision.
        rows = tf.reshape(dy, (-1, bias.shape[0]))
        ones = tf.ones_like(rows[:, :1])
        return dy, tf.matmul(ones, rows, transpose_a=True)[0]

    return tf.nn.bias_add(x, bias), gradient


def normalize_batch(x, norm):
    """Normalizes a batch by its own statistics, in one operation.

    Args:
        x: Tensor (batch, height, width, dim), single precision or half.
        norm: A `keras.layers.BatchNormalization`.

    Returns:
        The normalized tensor in the norm's dtype, and the mean and the (biased)
        variance, (dim,), float32, which pass no gradient. `None` for channels
        first, for float64 and for statistics that are synchronized over
        replicas.
    """
    single = x.dtype != tf.float64 and norm.variable_dtype == "float32"
    if norm.axis != -1 or norm.synchronized or not single:
        return None
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=tf.convert_to_tensor(norm.gamma),
        offset=tf.convert_to_tensor(norm.beta),
        mean=tf.zeros([0]),
        variance=tf.zeros([0]),
        epsilon=norm.epsilon,
        is_training=True,
    )
    # The operation returns the unbiased variance, divided by n - 1.
    n = tf.cast(tf.size(x) // tf.shape(x)[-1], tf.float32)
    variance *= (n - 1) / n
    outputs = tf.cast(outputs, norm.compute_dtype)
    return outputs, tf.stop_gradient(mean), tf.stop_gradient(variance)


def inference_loop(x, activation, norm):
    """Returns the inference operations between convolutions as one XLA loop.

    XLA compiles it for each new shape, in about 0.1 s for a whole network.

    Args:
        x: Tensor (batch, height, width, dim).
        activation: An element-wise function of a tensor.
        norm: A `keras.layers.BatchNormalization`.

    Returns:
        Function of `x` and `shortcut`, a tensor or `None`. It computes
        `norm(activation(x)) + shortcut` in the shape and dtype of `x`. The
        return value is `None` for activations other than Keras' `gelu` and
        `relu`, for channels first, for float64, and where another process may
        run the graph.
    """
    # By identity: a user's activation need not be hashable.
    if activation is keras.activations.gelu:
        loop = _gelu_loop
    elif activation is keras.activations.relu:
        loop = _relu_loop
    else:
        return None
    fits = x.dtype == norm.compute_dtype and x.dtype != tf.float64
    if norm.axis != -1 or not fits or not _runs_here():
        return None
    scale, offset = _scale_and_offset(norm)
    return lambda x, shortcut: loop(x, scale, offset, shortcut)


def _runs_here():
    """Returns whether this process runs what is computed now.

    It does in eager execution and within `tf.distribute.Strategy.run`, which
    `fit`, `evaluate` and `predict` use. Any other graph may be exported to a
    file and run in a runtime without XLA.
    """
    if tf.executing_eagerly():
        return True
    # Within a strategy's scope there is no context; elsewhere the default one.
    context = tf.distribute.get_replica_context()
    return context not in (None, _default_replica_context())


@functools.cache
def _default_replica_context():
    with tf.Graph().as_default():  # Outside any strategy's scope.
        return tf.distribute.get_replica_context()


def _scale_and_offset(norm):
    """Returns the scale and the offset in inference, float32 (dim,)."""
    gamma, beta, mean, variance = (
        ops.cast(weight, "float32")
        for weight in (
            norm.gamma,
            norm.beta,
            norm.moving_mean,
            norm.moving_variance,
        )
    )
    scale = gamma * ops.rsqrt(variance + norm.epsilon)
    return scale, beta - mean * scale


def _loop_gelu(x):
    if x.dtype != tf.bfloat16:
        return _clipped_gelu(x)
    # XLA's tanh takes half the time of its erf.
    x = tf.cast(x, tf.float32)
    u = tf.minimum(x * x, _FITTED_UP_TO**2)
    constant, linear, square = _PARABOLA
    slope = constant + u * (linear + u * square)
    return 0.5 * x * (1 + tf.tanh(x * slope))


def _loop_relu(x):
    return tf.nn.relu(_at_least_single(x))


def _make_loop(activate):
    @tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
    def loop(x, scale, offset, shortcut):
        y = activate(x) * scale + offset
        if shortcut is not None:
            y += _at_least_single(shortcut)
        return _round(y, x.dtype)

    def compute(x, scale, offset, shortcut):
        if x.dtype == tf.bfloat16:
            # These are vectors, so compute them outside the loop over the map.
            scale, offset = _roundable(scale), _roundable(offset)
        return loop(x, scale, offset, shortcut)

    return compute


_gelu_loop = _make_loop(_loop_gelu)
_relu_loop = _make_loop(_loop_relu)
