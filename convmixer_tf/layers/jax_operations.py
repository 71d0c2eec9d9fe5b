"""What XLA makes fewer passes over memory of, in JAX.

Same numbers, other operations. Seen in what XLA compiles for an NVIDIA GPU: it
writes the `erfc` of Keras' GELU to memory and reads it again, and reads a map
twice for its variance; see BUILD.md, "Compiled for a GPU". This module imports
JAX; see `acceleration` for where it is used.
"""

import math

import jax
import jax.numpy as jnp


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


def normalize_batch(x, gamma, beta, epsilon):
    """Normalises a batch by its own statistics, which one pass finds.

    The variance is the mean square less the square of the mean, both of the
    distances to what the first values are in the mean, lest digits cancel.

    Args:
        x: Array (batch, height, width, dim), single precision or half.
        gamma: Array (dim,), float32, the scale.
        beta: Array (dim,), float32, the offset.
        epsilon: Float, added to the variance.

    Returns:
        The normalised array, of the shape and dtype of `x`, and the mean and
        the (biased) variance, (dim,), float32.
    """
    dtype, x = x.dtype, _at_least_single(x)
    about = jax.lax.stop_gradient(x[0, 0].mean(0))
    distance = (x - about).mean((0, 1, 2))
    square = jnp.square(x - about).mean((0, 1, 2))
    variance = jnp.maximum(square - jnp.square(distance), 0)
    mean = about + distance
    scale = gamma * jax.lax.rsqrt(variance + epsilon)
    y = x * scale + (beta - mean * scale)
    return y.astype(dtype), mean, variance


def _at_least_single(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
