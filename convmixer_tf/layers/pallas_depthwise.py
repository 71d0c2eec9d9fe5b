"""Depthwise convolutions as kernels of our own, for JAX on an NVIDIA GPU.

Two designs, each for the convolution, which with `flipped` taps is also the
input's gradient, and for the kernel's gradient. Both add up in float32, read
their input from memory about once, and see zeros around it.

- `convolve` and `kernel_gradient` multiply and add, channels last. What is
  loaded once is used for several rows of outputs. `residual` is `convolve` and
  all that follows it in a block, in inference.
- `convolve_by_products` and `kernel_gradient_by_products` are for the tensor
  cores: lines of a channel's map times banded matrices that have a kernel's
  row in them. They need the channels in front, which XLA may arrange without
  copying.

Pallas compiles them through Triton. On a CPU they run interpreted, slowly,
which is how they are tested: no GPU has run them yet.
"""

import functools

import jax
import jax.numpy as jnp
import keras
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from convmixer_tf.layers.depthwise_forms import native
from convmixer_tf.layers.depthwise_parts import offsets
from convmixer_tf.layers.depthwise_toeplitz import Band

# A program of `convolve` computes this many rows, columns and channels.
ROWS, COLUMNS, CHANNELS = 8, 16, 32
WARPS = 4

# A product has this many lines of the map, and at least so many columns.
LINES, LEAST = 128, 16
LONGEST = 64  # columns of a map that one product spans
SPLITS = 4  # programs that share a channel's kernel gradient
LINES_OF_GRADIENT = 64

INDICES = 2**31  # Pointers are computed in 32 bits.

# The normal distribution's CDF at x is (1 + tanh(x g(x^2))) / 2 with g(u) =
# atanh(erf(sqrt(u / 2))) / sqrt(u), for which this polynomial was fitted, from
# the constant on.
_POLYNOMIAL = (
    *(0.797884268, 0.0363341491, -3.30267118e-05, -5.52733824e-05),
    *(3.97407005e-06, -1.3378315e-07, 1.8139261e-09),
)
_FITTED_UP_TO = 5.6


def gelu(x):
    """Computes the exact GELU without `erf`, which Pallas has not for Triton.

    Args:
        x: Array, float32.

    Returns:
        Array of the same shape, 2e-7 off at most, relative to the largest of
        `x` and 1.
    """
    u = jnp.minimum(x * x, _FITTED_UP_TO**2)
    slope = 0.0
    for coefficient in reversed(_POLYNOMIAL):
        slope = slope * u + coefficient
    return 0.5 * x * (1 + jnp.tanh(x * slope))


def activation_of(activation):
    """Gives an activation as a kernel can compute it.

    Args:
        activation: A function of a tensor, element by element.

    Returns:
        Function of a float32 array.

    Raises:
        NotImplementedError: For others than Keras' `gelu` and `relu`.
    """
    # By identity: an activation of the user's need not be hashable.
    if activation is keras.activations.gelu:
        return gelu
    if activation is keras.activations.relu:
        return jax.nn.relu
    raise NotImplementedError(f"it has no activation {activation}")


def _check(x, interpret):
    if not interpret and jax.default_backend() != "gpu":
        raise NotImplementedError("it is written for an NVIDIA GPU")
    if x.dtype not in (jnp.float16, jnp.bfloat16, jnp.float32):
        raise NotImplementedError(f"it has no {x.dtype}")
    if x.size >= INDICES:
        raise NotImplementedError(f"an input has {x.size} values")


def convolve(x, kernel, interpret=False):
    """Computes a depthwise convolution with "same" padding.

    Args:
        x: Array (batch, height, width, dim).
        kernel: Array (rows, columns, dim, 1) of the same dtype.
        interpret: Boolean, whether to run it in Python, on any device.

    Returns:
        Array of the shape and dtype of `x`.

    Raises:
        NotImplementedError: If there is no kernel for this device or array.
    """
    return _call(None, interpret, x, kernel[..., 0])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 6))
def residual(activation, x, kernel, bias, scale, offset, interpret=False):
    """Computes the residual branch of a block, and its sum with the input.

    For inference, as one kernel: `convolve`, a bias, the activation, the
    normalisation. All of it stays in float32 until the sum is rounded.

    Args:
        activation: Function of an array, element by element.
        x: As for `convolve`.
        kernel: As for `convolve`.
        bias: Array (dim,), float32 as the next two.
        scale: Array (dim,), what the activation is multiplied by.
        offset: Array (dim,), what is added then.
        interpret: As for `convolve`.

    Returns:
        Array of the shape and dtype of `x`.

    Raises:
        NotImplementedError: As `convolve`.
    """
    vectors = bias, scale, offset
    y, _ = _residual_forward(activation, x, kernel, *vectors, interpret)
    return y


def _residual_forward(activation, x, kernel, *vectors_and_interpret):
    *vectors, interpret = vectors_and_interpret
    y = _call(activation, interpret, x, kernel[..., 0], *vectors)
    return y, (x, kernel, *vectors)


def _residual_gradient(activation, _, arguments, dy):
    def plain(x, kernel, bias, scale, offset):
        y = native(x, kernel).astype(jnp.float32) + bias
        return (x + activation(y) * scale + offset).astype(x.dtype)

    return jax.vjp(plain, *arguments)[1](dy)


residual.defvjp(_residual_forward, _residual_gradient)


def _call(activation, interpret, x, *others):
    _check(x, interpret)
    batch, height, width, dim = x.shape
    grid = batch * pl.cdiv(height, ROWS), pl.cdiv(width, COLUMNS)
    return pl.pallas_call(
        functools.partial(_convolve, height, width, activation),
        grid=(pl.cdiv(dim, CHANNELS), *grid),
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        compiler_params=plt.CompilerParams(num_warps=WARPS, num_stages=2),
        interpret=interpret,
        name="depthwise_residual" if activation else "depthwise",
    )(x, *others)


def _convolve(height, width, activation, x, kernel, *vectors_and_y):
    *vectors, y = vectors_and_y
    dim = x.shape[-1]
    rows, columns = kernel.shape[:2]
    (above, *_), (left, *_) = offsets(rows), offsets(columns)
    channels = pl.program_id(0) * CHANNELS + jnp.arange(CHANNELS)
    tiles = pl.cdiv(height, ROWS)
    image, top = pl.program_id(1) // tiles, pl.program_id(1) % tiles * ROWS
    first = pl.program_id(2) * COLUMNS

    def add_column(j, totals):
        """Adds what one column of the kernel gives, to all rows at once."""
        taps = [_vector(kernel, channels, i, j) for i in range(rows)]
        totals = list(totals)
        for source in range(ROWS + rows - 1):
            line = _line(
                x, image, top + above + source, first + left + j, channels
            )
            for i in range(max(0, source - ROWS + 1), min(rows, source + 1)):
                totals[source - i] += line * taps[i]
        return tuple(totals)

    zeros = jnp.zeros((COLUMNS, CHANNELS), jnp.float32)
    totals = lax.fori_loop(0, columns, add_column, (zeros,) * ROWS)
    at = first + jnp.arange(COLUMNS)
    inside = (at < width)[:, None] & (channels < dim)[None]
    for row, total in enumerate(totals):
        if activation:
            line = _line(x, image, top + row, first, channels)
            bias, scale, offset = (_vector(v, channels) for v in vectors)
            total = line + activation(total + bias) * scale + offset
        mask = inside & (top + row < height)
        plt.store(
            y.at[image, top + row, at[:, None], channels[None]],
            total.astype(y.dtype),
            mask=mask,
        )


def _vector(values, channels, *at):
    mask = channels < values.shape[-1]
    values = plt.load(values.at[*at, channels], mask=mask, other=0)
    return values.astype(jnp.float32)[None]


def _line(x, image, row, first, channels):
    """Loads columns of one row, with zeros where there are none."""
    _, height, width, dim = x.shape
    at = first + jnp.arange(COLUMNS)
    mask = ((at >= 0) & (at < width))[:, None] & (channels < dim)[None]
    mask &= (row >= 0) & (row < height)
    line = plt.load(
        x.at[image, row, at[:, None], channels[None]], mask=mask, other=0
    )
    return line.astype(jnp.float32)


def kernel_gradient(x, dy, kernel_size, interpret=False):
    """Computes the gradient with respect to the kernel.

    Args:
        x: Array (batch, height, width, dim).
        dy: Array of its shape and dtype, the output's gradient.
        kernel_size: (rows, columns).
        interpret: As for `convolve`.

    Returns:
        Array (rows, columns, dim, 1) of the dtype of `x`.

    Raises:
        NotImplementedError: As `convolve`.
    """
    _check(x, interpret)
    batch, _, width, dim = x.shape
    strips = pl.cdiv(width, COLUMNS)
    parts = pl.pallas_call(
        functools.partial(_kernel_gradient, kernel_size),
        grid=(pl.cdiv(dim, CHANNELS), batch, strips),
        out_shape=jax.ShapeDtypeStruct(
            (batch, strips, *kernel_size, dim), jnp.float32
        ),
        compiler_params=plt.CompilerParams(num_warps=WARPS, num_stages=2),
        interpret=interpret,
        name="depthwise_kernel_gradient",
    )(x, dy)
    return parts.sum((0, 1)).astype(x.dtype)[..., None]


def _kernel_gradient(kernel_size, x, dy, parts):
    rows, columns = kernel_size
    (above, *_), (left, *_) = offsets(rows), offsets(columns)
    _, height, _, dim = x.shape
    channels = pl.program_id(0) * CHANNELS + jnp.arange(CHANNELS)
    image, strip = pl.program_id(1), pl.program_id(2)
    first = strip * COLUMNS

    def add_rows(j, block, totals):
        top, totals = block * ROWS, list(totals)
        lines = [
            _line(dy, image, top + row, first, channels) for row in range(ROWS)
        ]
        for source in range(ROWS + rows - 1):
            line = _line(
                x, image, top + above + source, first + left + j, channels
            )
            for i in range(max(0, source - ROWS + 1), min(rows, source + 1)):
                totals[i] += line * lines[source - i]
        return tuple(totals)

    def column(j, _):
        zeros = jnp.zeros((COLUMNS, CHANNELS), jnp.float32)
        totals = lax.fori_loop(
            0,
            pl.cdiv(height, ROWS),
            functools.partial(add_rows, j),
            (zeros,) * rows,
        )
        for i, total in enumerate(totals):
            plt.store(
                parts.at[image, strip, i, j, channels],
                total.sum(0),
                mask=channels < dim,
            )
        return 0

    lax.fori_loop(0, columns, column, 0)


def convolve_by_products(x, kernel, interpret=False):
    """Computes what `convolve` does, on tensor cores."""
    _check(x, interpret)
    batch, height, width, dim = x.shape
    padded = _padded(width)
    lines = _lines_of(x, padded)
    matrices = jnp.einsum(
        "pbj,ijc->cipb",
        _matrix(width, padded, kernel.shape[1]).astype(x.dtype),
        kernel[..., 0],
    )
    y = pl.pallas_call(
        functools.partial(_products, height),
        grid=(dim, pl.cdiv(batch * height, LINES)),
        out_shape=jax.ShapeDtypeStruct(lines.shape, x.dtype),
        compiler_params=plt.CompilerParams(num_warps=WARPS, num_stages=2),
        interpret=interpret,
        name="depthwise_products",
    )(lines, matrices)
    y = y.reshape(dim, batch, height, padded)[..., :width]
    return y.transpose(1, 2, 3, 0)


def _products(height, x, matrices, y):
    channel, columns = pl.program_id(0), jnp.arange(x.shape[2])
    lines = pl.program_id(1) * LINES + jnp.arange(LINES)
    rows = matrices.shape[1]
    total = jnp.zeros((LINES, len(columns)), jnp.float32)
    for i, shift in enumerate(offsets(rows)):
        total += _dot(
            _shifted_lines(x, channel, lines, shift, height),
            matrices[channel, i],
        )
    plt.store(
        y.at[channel, lines[:, None], columns[None]],
        total.astype(y.dtype),
        mask=(lines < x.shape[1])[:, None] & (columns >= 0)[None],
    )


def _shifted_lines(x, channel, lines, shift, height):
    """Loads lines of the maps, with zeros for those of another image."""
    columns, row = jnp.arange(x.shape[2]), lines % height + shift
    mask = (lines < x.shape[1]) & (row >= 0) & (row < height)
    return plt.load(
        x.at[channel, (lines + shift)[:, None], columns[None]],
        mask=mask[:, None] & (columns >= 0)[None],
        other=0,
    )


def _dot(a, b):
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jnp.dot(
        a, b, precision=precision, preferred_element_type=jnp.float32
    )


def kernel_gradient_by_products(x, dy, kernel_size, interpret=False):
    """Computes what `kernel_gradient` does, on tensor cores."""
    _check(x, interpret)
    (_, height, width, dim), rows = x.shape, kernel_size[0]
    padded = _padded(width)
    products = pl.pallas_call(
        functools.partial(_products_of_gradient, height, rows),
        grid=(dim, SPLITS),
        out_shape=jax.ShapeDtypeStruct(
            (dim, SPLITS, rows, padded, padded), jnp.float32
        ),
        compiler_params=plt.CompilerParams(num_warps=WARPS, num_stages=2),
        interpret=interpret,
        name="depthwise_products_kernel_gradient",
    )(_lines_of(x, padded), _lines_of(dy, padded))
    dkernel = jnp.einsum(
        "pbj,csipb->ijc", _matrix(width, padded, kernel_size[1]), products
    )
    return dkernel.astype(x.dtype)[..., None]


def _products_of_gradient(height, rows, x, dy, products):
    channel, split = pl.program_id(0), pl.program_id(1)
    padded = x.shape[2]
    blocks = pl.cdiv(x.shape[1], LINES_OF_GRADIENT)

    def add_block(block, totals):
        lines = block * LINES_OF_GRADIENT + jnp.arange(LINES_OF_GRADIENT)
        slopes = _shifted_lines(dy, channel, lines, 0, height)
        return tuple(
            total
            + _dot(_shifted_lines(x, channel, lines, shift, height).T, slopes)
            for total, shift in zip(totals, offsets(rows), strict=True)
        )

    each = pl.cdiv(blocks, SPLITS)
    zeros = jnp.zeros((padded, padded), jnp.float32)
    totals = lax.fori_loop(
        split * each, (split + 1) * each, add_block, (zeros,) * rows
    )
    for i, total in enumerate(totals):
        products[channel, split, i] = total


def _padded(width):
    if width > LONGEST:
        raise NotImplementedError(f"a line of the map has {width} values")
    return max(LEAST, pl.next_power_of_2(width))


def _lines_of(x, padded):
    """Gives (dim, batch * height, padded): a channel's lines, and zeros."""
    batch, height, width, dim = x.shape
    x = jnp.pad(x.transpose(3, 0, 1, 2), [(0, 0)] * 3 + [(0, padded - width)])
    return x.reshape(dim, batch * height, padded)


def _matrix(width, padded, taps):
    more = [(0, padded - width)] * 2
    return jnp.pad(
        jnp.asarray(Band(width, width, taps).matrix()), [*more, (0, 0)]
    )
