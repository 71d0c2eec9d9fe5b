"""Batch statistics that XLA compiles to one pass over memory."""

import keras
from keras import ops


def normalize_batch(x, norm):
    """Normalizes a batch by its own statistics, computed in one pass.

    The variance is the mean square minus the squared mean. The mean of the
    first values is subtracted from all values first, to avoid cancellation.

    Args:
        x: Tensor (batch, height, width, dim), single precision or half.
        norm: A `keras.layers.BatchNormalization`.

    Returns:
        The normalized tensor in the norm's dtype, and the mean and the (biased)
        variance, (dim,), float32. `None` for channels first, for float64 and
        for statistics that are synchronized over replicas.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    single = dtype != "float64" and norm.variable_dtype == "float32"
    if norm.axis != -1 or norm.synchronized or not single:
        return None
    gamma, beta = map(ops.convert_to_tensor, (norm.gamma, norm.beta))
    x = ops.cast(x, "float32")
    about = ops.stop_gradient(ops.mean(x[0, 0], axis=0))
    distance = ops.mean(x - about, axis=(0, 1, 2))
    square = ops.mean(ops.square(x - about), axis=(0, 1, 2))
    variance = ops.maximum(square - ops.square(distance), 0)
    mean = about + distance
    scale = gamma * ops.rsqrt(variance + norm.epsilon)
    y = x * scale + (beta - mean * scale)
    return ops.cast(y, norm.compute_dtype), mean, variance
