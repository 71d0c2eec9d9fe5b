"""JAX operations that pass over memory less often or are faster on a CPU.

Programs that XLA compiles for an NVIDIA GPU showed two problems. In half
precision, they write the `erfc` of Keras' GELU to memory and read it again.
They read a feature map twice to compute its variance.
"""

import math

import jax
import jax.numpy as jnp
import keras

from convmixer_tf.layers._fast import one_pass

normalize_batch = one_pass.normalize_batch

# XLA's own kernel gradient is fast on a CPU for up to 3 columns.
_FEWEST_COLUMNS = 4

# The matrices of `_kernel_gradient_by_lines` grow with a line's length squared.
_LONGEST_LINE = 64  # patches


def gelu(x):
    """Computes the exact GELU: x times the normal distribution's CDF.

    Like PyTorch, it computes in single precision; Keras' own GELU computes in
    the half precision of `x`. The absolute error is below 1e-6. It avoids
    `jax.lax.erf` because TensorFlow 2.21 can't run a SavedModel that contains
    it.

    Args:
        x: Array.

    Returns:
        Array of the same shape. It is float32 if `x` has half precision;
        otherwise it has the dtype of `x`.
    """
    x = _at_least_single(x)
    return 0.5 * x * jax.lax.erfc(-x * math.sqrt(0.5))


def trained_gelu(x):
    """Computes `gelu`, in the dtype of `x`."""
    return gelu(x).astype(x.dtype)


def add_bias(x, bias):
    """Adds a bias. JAX sums its gradient accurately."""
    return x + bias


def inference_loop(x, activation, norm):
    """Returns `None`: XLA compiles the network as a whole."""
    return None


def convolve(x, kernel, conv, training):
    """Computes a depthwise convolution on a CPU, without its bias.

    Args:
        x: Array, a batch of images.
        kernel: Array of the dtype of `x`, the kernel of `conv`.
        conv: A Keras convolution layer.
        training: Boolean, whether gradients will be computed.

    Returns:
        Array, or `None` where XLA's own is as fast: for other convolutions, for
        kernels of few columns, and on other devices.
    """
    if (
        not isinstance(conv, keras.layers.DepthwiseConv2D)
        or conv.kernel_size[1] < _FEWEST_COLUMNS
        or jax.default_backend() != "cpu"
    ):
        return None
    convolved = _trained if training and conv.trainable else _forward
    if conv.data_format == "channels_last":
        return convolved(x, kernel)
    y = convolved(x.transpose(0, 2, 3, 1), kernel)
    return y.transpose(0, 3, 1, 2)


def _forward(x, kernel):
    """Sums shifted inputs, which XLA compiles to one loop."""
    (rows, columns), (height, width) = kernel.shape[:2], x.shape[1:3]
    dtype, x = x.dtype, _at_least_single(_pad(x, rows, columns))
    kernel = _at_least_single(kernel)
    total = sum(
        x[:, i : i + height, j : j + width] * kernel[i, j, :, 0]
        for i in range(rows)
        for j in range(columns)
    )
    return total.astype(dtype)


_trained = jax.custom_vjp(_forward)


def _gradients(operands, dy):
    x, kernel = operands
    by_lines = _is_known(x.shape[1:3]) and x.shape[2] <= _LONGEST_LINE
    compute = _kernel_gradient_by_lines if by_lines else _kernel_gradient
    return _input_gradient(dy, kernel), compute(x, dy, kernel.shape[:2])


_trained.defvjp(
    lambda x, kernel: (_forward(x, kernel), (x, kernel)), _gradients
)


def _input_gradient(dy, kernel):
    # An even kernel reaches one further ahead than back, so its flipped copy
    # must reach one further back. A row of zeros does that.
    even = [(0, 1 - size % 2) for size in kernel.shape[:2]]
    flipped = jnp.pad(jnp.flip(kernel, (0, 1)), [*even, (0, 0), (0, 0)])
    return _forward(dy, flipped)


def _kernel_gradient(x, dy, kernel_size):
    """Computes the gradient tap by tap."""
    (rows, columns), (height, width) = kernel_size, x.shape[1:3]
    padded, dy = map(_at_least_single, (_pad(x, rows, columns), dy))
    taps = [
        (padded[:, i : i + height, j : j + width] * dy).sum((0, 1, 2))
        for i in range(rows)
        for j in range(columns)
    ]
    return jnp.stack(taps).reshape(rows, columns, -1, 1).astype(x.dtype)


def _kernel_gradient_by_lines(x, dy, kernel_size):
    """Computes one matrix product for each channel and row of the kernel.

    It multiplies every column of the input with every column of `dy`. A tap's
    gradient is the sum of the products whose columns have the tap's distance.
    """
    (rows, columns), (height, width) = kernel_size, x.shape[1:3]
    padded = _pad(x, rows, 1)
    lines = jnp.stack([padded[:, i : i + height] for i in range(rows)])
    single = jnp.promote_types(x.dtype, jnp.float32)
    products = jnp.einsum(
        "inuqc,nubc->ciqb", lines, dy, preferred_element_type=single
    )
    q, b, j = jnp.ogrid[:width, :width, :columns]
    apart = (q == b + j - (columns - 1) // 2).astype(single)
    taps = jnp.einsum("qbj,ciqb->ijc", apart, products)
    return taps[..., None].astype(x.dtype)


def _pad(x, rows, columns):
    """Adds the zeros of "same" padding."""
    pads = [((size - 1) // 2, size // 2) for size in (rows, columns)]
    return jnp.pad(x, [(0, 0), *pads, (0, 0)])


def _is_known(sizes):
    """Whether all are numbers; a JAX export has symbolic sizes."""
    return all(isinstance(size, int) for size in sizes)


def _at_least_single(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
