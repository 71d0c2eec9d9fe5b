"""The one place that decides where something faster than Keras is used."""

import contextlib
import contextvars

import keras

_PLAIN = contextvars.ContextVar("plain_operations", default=False)


@contextlib.contextmanager
def plain_operations():
    """Leaves the layers to Keras' own operations, on every device.

    For a graph that trains elsewhere: what is fast on this machine's CPU may
    be slow there, or need a compiler that is not there. It holds for the
    thread that enters it, not for those that a strategy's replicas run in.
    """
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def faster_than_keras():
    """Gives the module of what is faster than Keras here.

    Each of its functions takes Keras' own layers, which hold the weights:

    - `convolve(x, kernel, conv, training)`: the convolution without its bias,
      `None` where Keras' own is as fast;
    - `add_bias(x, bias)`: the sum of both, for training in bfloat16;
    - `gelu(x)` and `trained_gelu(x)`: the exact GELU;
    - `normalize_batch(x, norm)`: a batch, normalized by its own statistics,
      with its mean and variance, or `None`;
    - `inference_loop(x, activation, norm)`: a function of `x` and a shortcut
      that computes `norm(activation(x)) + shortcut`, or `None`.

    Returns:
        A module with TensorFlow, if it sees nothing but CPUs or if XLA
        compiles, and with JAX; `None` elsewhere and within
        `plain_operations`. Only the framework that Keras runs on is imported.
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
