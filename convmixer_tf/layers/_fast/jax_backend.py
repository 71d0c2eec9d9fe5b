"""What JAX computes in fewer passes over memory, or faster on a CPU.

Seen in what XLA compiles for an NVIDIA GPU: in half precision it writes the
`erfc` of Keras' GELU to memory and reads it again, and it reads a map twice
for its variance.
"""

import math

import jax
import jax.numpy as jnp
import keras

from convmixer_tf.layers._fast import one_pass

normalize_batch = one_pass.normalize_batch

# XLA's own gradient of the kernel is fast on a CPU up to 3 columns.
_FEWEST_COLUMNS = 4

# The matrices of `_kernel_gradient_by_lines` grow with the square of a line.
_LONGEST_LINE = 64  # patches


def gelu(x):
    """Computes the exact GELU: x times the normal distribution's CDF.

    In single precision, as PyTorch does, where Keras' own computes in the half
    precision of `x`. The absolute error stays below 1e-6. Not by
    `jax.lax.erf`: TensorFlow 2.21 can't run a SavedModel that has it.

    Args:
        x: Array.

    Returns:
        Array of the same shape; float32 for a half-precision `x`, otherwise
        of its dtype.
    """
    x = _at_least_single(x)
    return 0.5 * x * jax.lax.erfc(-x * math.sqrt(0.5))


def trained_gelu(x):
    """Computes `gelu`, in the dtype of `x`."""
    return gelu(x).astype(x.dtype)


def add_bias(x, bias):
    """Adds a bias: in JAX the gradient's sum is right."""
    return x + bias


def inference_loop(x, activation, norm):
    """Gives `None`: XLA compiles the network whole."""
    return None


def convolve(x, kernel, conv, training):
    """Computes a depthwise convolution on a CPU, without its bias.

    Args:
        x: Array, a batch of images.
        kernel: Array of the dtype of `x`, the kernel of `conv`.
        conv: A convolution layer of Keras'.
        training: Boolean, whether gradients are going to be asked for.

    Returns:
        Array; `None` for other convolutions, for fewer columns, and on other
        devices, where XLA's own is as fast.
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
    """A sum of shifted inputs, of which XLA makes one loop."""
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
    # An even kernel looks one further ahead than back, so this one has to look
    # back: by a row of zeros.
    even = [(0, 1 - size % 2) for size in kernel.shape[:2]]
    flipped = jnp.pad(jnp.flip(kernel, (0, 1)), [*even, (0, 0), (0, 0)])
    return _forward(dy, flipped)


def _kernel_gradient(x, dy, kernel_size):
    """Tap by tap."""
    (rows, columns), (height, width) = kernel_size, x.shape[1:3]
    padded, dy = map(_at_least_single, (_pad(x, rows, columns), dy))
    taps = [
        (padded[:, i : i + height, j : j + width] * dy).sum((0, 1, 2))
        for i in range(rows)
        for j in range(columns)
    ]
    return jnp.stack(taps).reshape(rows, columns, -1, 1).astype(x.dtype)


def _kernel_gradient_by_lines(x, dy, kernel_size):
    """A matrix product for each channel and row of the kernel.

    It multiplies every column of the input with every column of `dy`. A tap
    is the sum of those products whose columns lie as far apart.
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
    """Pads with the zeros that "same" padding has around."""
    pads = [((size - 1) // 2, size // 2) for size in (rows, columns)]
    return jnp.pad(x, [(0, 0), *pads, (0, 0)])


def _is_known(sizes):
    """Whether all are numbers, not symbols, as JAX has them in an export."""
    return all(isinstance(size, int) for size in sizes)


def _at_least_single(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
