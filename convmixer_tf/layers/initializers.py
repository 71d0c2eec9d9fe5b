"""Initializers of the layers' kernels and biases."""

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import initializers
from keras import ops

from convmixer_tf.layers.validation import check_fraction

# The variance is a polynomial of depth. The paper's values for small patches.
_VARIANCES = (0.16, 0.32, 2.88)


def torch_uniform(fan_in):
    """Builds PyTorch's default initializer for a kernel or its bias.

    Keras' defaults are Glorot's initializer and a zero bias. Glorot's also
    counts the channels of a depthwise kernel as inputs, although each output
    depends on one channel only.

    Args:
        fan_in: Integer, the number of inputs that one output is computed from.

    Returns:
        A new initializer, uniform in +-1/sqrt(fan_in). Do not reuse it: it
        would draw the same values again.
    """
    limit = 1 / math.sqrt(fan_in)
    return initializers.RandomUniform(-limit, limit)


@keras.saving.register_keras_serializable("convmixer_tf")
class CovarianceInitializer(initializers.Initializer):
    """Draws depthwise kernels that look like trained ones.

    Trained kernels of a ConvMixer are smooth, negative around a positive
    center or the reverse, and grow wider with depth. This initializer draws
    each kernel from a normal distribution of mean zero. `tap_covariance`
    computes the covariance between the taps of a kernel in closed form. Nothing
    is learned from data.

    Reference: Trockman, Willmott and Kolter, "Understanding the Covariance
    Structure of Convolutional Filters", https://arxiv.org/abs/2210.03651

    Args:
        depth: Position of the layer in the network, from 0 for the first to 1
            for the last.
        variances: Three numbers v0, v1 and v2. The squared width of the
            Gaussians, in patches, is v0 + v1 * depth + v2 * depth**2 / 2. The
            default is the paper's, for small patches.
        seed: Integer, or `None` to draw a seed when the initializer is created.
            An initializer returns the same values each time it is called.

    Raises:
        ValueError: If `depth` is not in [0, 1], or if the width would not be
            positive.

    Example:

    ```python
    initializer = CovarianceInitializer(depth=0.5, seed=0)
    initializer((9, 9, 256, 1))  # Height, width, channels, multiplier.
    ```
    """

    def __init__(
        self,
        depth: float,
        variances: Sequence[float] = _VARIANCES,
        seed: int | None = None,
    ) -> None:
        check_fraction("depth", depth)
        self.depth = depth
        self.variances = tuple(variances)
        self.seed = seed
        self._normal = initializers.RandomNormal(stddev=1.0, seed=seed)
        if not self._variance() > 0:
            raise ValueError(
                "Argument `variances` must give a positive variance at "
                f"depth={depth}. Received: variances={variances}"
            )

    def __call__(self, shape, dtype=None):
        if len(shape) != 4:
            raise ValueError(
                "A depthwise kernel has the shape (height, width, channels, "
                f"multiplier). Received: shape={tuple(shape)}"
            )
        height, width, *channels = shape
        covariance = tap_covariance(height, width, self._variance())
        values, vectors = np.linalg.eigh(covariance)
        # Rounding and the subtraction can make eigenvalues slightly negative.
        factor = vectors * np.sqrt(values.clip(0))
        dtype = keras.backend.standardize_dtype(dtype)
        independent = self._normal(
            (height * width, math.prod(channels)), "float32"
        )
        kernels = ops.matmul(factor.astype("float32"), independent)
        return ops.cast(ops.reshape(kernels, shape), dtype)

    def get_config(self):
        return {
            "depth": self.depth,
            "variances": list(self.variances),
            "seed": self.seed,
        }

    def _variance(self):
        v0, v1, v2 = self.variances
        return v0 + v1 * self.depth + v2 * self.depth**2 / 2


def tap_covariance(height, width, variance):
    """Computes the covariance between the taps of a kernel.

    Let g(x) = exp(-|x|**2 / (2 * variance)) be a Gaussian of a location. The
    covariance of the taps at p and q, both relative to the center, is g(p) *
    (g(q - p) - g(q) / 2), made symmetric in p and q.

    Args:
        height: Integer, the number of rows of the kernel.
        width: Integer, the number of columns of the kernel.
        variance: Float, the squared width of the Gaussian, in taps.

    Returns:
        Float64 array of shape (height * width, height * width), for the taps
        row by row. A kernel of even size has its center at the tap on the
        output's location: the left or upper one of the two middle taps.
    """
    rows, columns = np.indices((height, width)).reshape(2, -1)
    taps = np.stack([rows - (height - 1) // 2, columns - (width - 1) // 2], -1)

    def gaussian(offsets):
        return np.exp(-np.sum(offsets**2, axis=-1) / (2 * variance))

    shifted = gaussian(taps[None] - taps[:, None])
    envelope = gaussian(taps)
    covariance = envelope[:, None] * (shifted - envelope / 2)
    return (covariance + covariance.T) / 2
