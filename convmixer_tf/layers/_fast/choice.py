"""Decides where operations faster than Keras' are used."""

import contextlib
import contextvars

import keras

_PLAIN = contextvars.ContextVar("plain_operations", default=False)


@contextlib.contextmanager
def plain_operations():
    """Makes the layers use Keras' own operations on every device.

    Use it for a graph that trains on another machine: an operation that is fast
    on this machine's CPU may be slow there, or may need a compiler that is
    missing there. It applies to the thread that enters it, not to the threads
    of a strategy's replicas.
    """
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def faster_than_keras():
    """Returns the module with operations faster than Keras', if there is one.

    Each of its functions takes stock Keras layers, which hold the weights:

    - `convolve(x, kernel, conv, training)`: the convolution without its bias,
      or `None` where Keras' own is as fast;
    - `add_bias(x, bias)`: the sum, for training in bfloat16;
    - `gelu(x)` and `trained_gelu(x)`: the exact GELU;
    - `normalize_batch(x, norm)`: a batch normalized by its own statistics,
      with its mean and variance, or `None`;
    - `inference_loop(x, activation, norm)`: a function of `x` and a shortcut
      that computes `norm(activation(x)) + shortcut`, or `None`.

    Returns:
        A module. `None` within `plain_operations`, on other backends than
        TensorFlow and JAX, and with TensorFlow if it sees other devices than
        CPUs and XLA does not compile. Only the framework that Keras uses is
        imported.
    """
    if _PLAIN.get():
        return None
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from convmixer_tf.layers._fast import tensorflow_cpu

        if tensorflow_cpu.only_cpus():
            return tensorflow_cpu
        from convmixer_tf.layers._fast import tensorflow_xla

        return tensorflow_xla if tensorflow_xla.compiles() else None
    if backend == "jax":
        from convmixer_tf.layers._fast import jax_backend

        return jax_backend
    return None
