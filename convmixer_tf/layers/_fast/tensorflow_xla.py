"""What XLA makes fewer passes over memory of, on a GPU or a TPU.

In half precision it writes the `erfc` of Keras' GELU to memory and reads it
again, and it reads a map twice for its variance.
"""

import operator

import tensorflow as tf
from tensorflow.python.ops import control_flow_util

from convmixer_tf.layers._fast import one_pass
from convmixer_tf.layers._fast import tensorflow_cpu

gelu = tensorflow_cpu.gelu
normalize_batch = one_pass.normalize_batch
add_bias = operator.add  # XLA sums the gradient in single precision.


def compiles():
    """Tells whether XLA compiles what is computed now.

    It is within `jit_compile=True`, of `tf.function` or of Keras, and within
    a `TPUStrategy`.
    """
    graph = tf.compat.v1.get_default_graph()
    return control_flow_util.GraphOrParentsInXlaContext(graph)


def trained_gelu(x):
    """Computes the exact GELU by `gelu`, in the dtype of `x`."""
    return tf.cast(gelu(x), x.dtype)


def convolve(x, kernel, conv, training):
    """Gives `None`: Keras' own is the fastest."""
    return None


def inference_loop(x, activation, norm):
    """Gives `None`: XLA compiles the network whole."""
    return None
