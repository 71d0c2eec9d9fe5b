"""Operations that XLA compiles to fewer passes over memory, on GPUs and TPUs.

With Keras' own operations in half precision, XLA writes the `erfc` of the GELU
to memory and reads it again. It also reads a feature map twice to compute its
variance.
"""

import operator

import tensorflow as tf
from tensorflow.compiler.tf2xla.python.xla import optimization_barrier
from tensorflow.python.ops import control_flow_util

from convmixer_tf.layers._fast import one_pass
from convmixer_tf.layers._fast import tensorflow_cpu

gelu = tensorflow_cpu.gelu
normalize_batch = one_pass.normalize_batch
add_bias = operator.add  # XLA sums the gradient in single precision.


def compiles():
    """Returns whether XLA compiles what is computed now.

    It does with `jit_compile=True` of `tf.function` or of Keras, and within a
    `TPUStrategy`.
    """
    graph = tf.compat.v1.get_default_graph()
    return control_flow_util.GraphOrParentsInXlaContext(graph)


def trained_gelu(x):
    """Computes the exact GELU with `gelu`, in the dtype of `x`."""
    return tf.cast(gelu(x), x.dtype)


def convolve(x, kernel, conv, training):
    """Returns `None`: Keras' own is the fastest."""
    return None


def inference_loop(x, activation, norm):
    """Returns `None`: XLA compiles the network as a whole."""
    return None


def remat(function):
    """Wraps a function so that its gradient keeps only the argument.

    XLA would compute once what `tf.recompute_grad` computes twice, and would
    keep it. An optimization barrier prevents that. The gradient passes through
    it, too, so that the second computation waits for the gradient.

    Args:
        function: Function of a tensor that returns a list of tensors. Only the
            first has a gradient.

    Returns:
        A function that returns the same.
    """

    @tf.custom_gradient
    def compute(x):
        def gradient(upstream, *unused, variables=()):
            again, upstream = optimization_barrier(x, upstream)
            with tf.GradientTape() as tape:
                tape.watch(again)
                y, *_ = function(again)
            dx, *rest = tape.gradient(y, [again, *variables], upstream)
            return dx, rest

        return function(x), gradient

    return compute
