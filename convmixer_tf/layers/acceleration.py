"""Where faster operations than Keras' own are at hand."""

import contextlib
import contextvars

import keras

_PLAIN = contextvars.ContextVar("plain_operations", default=False)


@contextlib.contextmanager
def plain_operations():
    """Leaves the layers to Keras' own operations, on every device.

    For a graph that trains elsewhere: what is fast on this machine's CPU may
    be slow there, or need a compiler that isn't there. It holds for the thread
    that enters it, not for those that a strategy's replicas run in.
    """
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def plain():
    """Tells whether this is within `plain_operations`."""
    return _PLAIN.get()


def tensorflow_cpu():
    """Gives the module of operations for TensorFlow on CPUs.

    Returns:
        The module `convmixer_tf.layers.tensorflow_cpu` if Keras runs on
        TensorFlow and TensorFlow on nothing but CPUs, outside of
        `plain_operations`; otherwise None, and TensorFlow is not imported.
    """
    if keras.backend.backend() != "tensorflow" or _PLAIN.get():
        return None
    from convmixer_tf.layers import tensorflow_cpu as module

    return module if module.only_cpus() else None


def jax_operations():
    """Gives the module of operations for JAX, on any device.

    Returns:
        The module `convmixer_tf.layers.jax_operations` if Keras runs on JAX,
        outside of `plain_operations`; otherwise None, and JAX is not imported.
    """
    if keras.backend.backend() != "jax" or _PLAIN.get():
        return None
    from convmixer_tf.layers import jax_operations as module

    return module


def jax_cpu():
    """Tells whether Keras runs on JAX, and JAX on CPUs.

    Returns:
        Boolean; False within `plain_operations`. JAX is imported only if
        Keras runs on it.
    """
    module = jax_operations()
    return bool(module) and module.jax.default_backend() == "cpu"


def activate(activation, x, training):
    """Computes `activation(x)`, the exact GELU by the fastest way.

    Args:
        activation: A function of a tensor, element by element.
        x: Tensor.
        training: Boolean, whether gradients are going to be asked for.

    Returns:
        Tensor of the shape of `x`. In inference it may be of single precision
        where `x` is not: the normalisation that follows computes in it.
    """
    fast = activation is keras.activations.gelu and (
        tensorflow_cpu() or jax_operations()
    )
    if not fast:
        return activation(x)
    return fast.trained_gelu(x) if training else fast.gelu(x)
