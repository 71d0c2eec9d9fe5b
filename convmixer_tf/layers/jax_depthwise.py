"""Depthwise convolutions in JAX: their gradients, by any form.

This module imports JAX; see `depthwise_plan` for where it is used.
"""

import jax

from convmixer_tf.layers.depthwise_forms import native


def native_input_gradient(dy, kernel):
    """Computes the gradient with respect to the input, by JAX's own.

    Args:
        dy: Array (batch, height, width, dim), the output's gradient.
        kernel: Array (rows, columns, dim, 1) of the same dtype.

    Returns:
        Array of the shape of `dy`.
    """
    transpose = jax.linear_transpose(lambda x: native(x, kernel), dy)
    return transpose(dy)[0]


def native_kernel_gradient(x, dy, kernel_size):
    """Computes the gradient with respect to the kernel, by JAX's own.

    Args:
        x: Array (batch, height, width, dim).
        dy: Array of its shape and dtype, the output's gradient.
        kernel_size: (rows, columns).

    Returns:
        Array (rows, columns, dim, 1).
    """
    kernel = jax.ShapeDtypeStruct((*kernel_size, x.shape[3], 1), x.dtype)
    transpose = jax.linear_transpose(lambda kernel: native(x, kernel), kernel)
    return transpose(dy)[0]


def with_gradients(forward, input_gradient, kernel_gradient):
    """Puts a function together with its gradients.

    Args:
        forward: Function of `x` and `kernel`.
        input_gradient: Function of `dy` and `kernel`.
        kernel_gradient: Function of `x`, `dy` and the kernel's size.

    Returns:
        Function of arrays `x` and `kernel`.
    """
    convolve = jax.custom_vjp(forward)

    def gradient(arguments, dy):
        x, kernel = arguments
        dkernel = kernel_gradient(x, dy, tuple(kernel.shape[:2]))
        return input_gradient(dy, kernel), dkernel

    convolve.defvjp(
        lambda x, kernel: (forward(x, kernel), (x, kernel)), gradient
    )
    return convolve


def compiled(function):
    """Compiles a function, for timing.

    Args:
        function: Function of arrays.

    Returns:
        Function that returns when the device is done.
    """
    jitted = jax.jit(function)

    def run(*arguments):
        return jax.block_until_ready(jitted(*arguments))

    return run


def device():
    """Describes where JAX computes: (its kind, its name, version)."""
    first = jax.devices()[0]
    return jax.default_backend(), first.device_kind, jax.__version__
