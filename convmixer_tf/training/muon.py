"""The Muon optimizer for 1 x 1 convolutions, on mirrored variables."""

import tensorflow as tf

from convmixer_tf.training.optimizer import AdamW
from convmixer_tf.training.optimizer import raw
from convmixer_tf.training.optimizer import zeros_like

# The quintic polynomial is steep at 0 and keeps singular values near 1.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Muon(tf.Module):
    """Updates matrices with Muon and all other variables with `AdamW`.

    Muon replaces the momentum of a matrix with the closest orthogonal matrix,
    so that all directions are learned at the same rate. The matrices are the
    kernels of 1 x 1 convolutions. `keras.optimizers.Muon` would use AdamW for
    them because their rank is not 2.

    References: Jordan et al., https://kellerjordan.github.io/posts/muon; Liu
    et al., "Muon is Scalable for LLM Training",
    https://arxiv.org/abs/2502.16982, for the scale that gives updates the size
    of AdamW's.

    Args:
        variables: List of the `keras.Variable` or `tf.Variable` to train.
        rate_ratio: Learning rate of the matrices, as a multiple of the other
            variables' learning rate.
        momentum: Decay of the sum of the gradients, per update, with Nesterov
            momentum.
        weight_decay: As for `AdamW`, for all variables.
        rate_scales: As for `AdamW`, for all variables.
        **adamw: The other arguments of `AdamW`.
    """

    def __init__(
        self,
        variables,
        rate_ratio=1.0,
        momentum=0.95,
        weight_decay=1e-2,
        rate_scales=None,
        **adamw,
    ):
        super().__init__()
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.is_matrix = [_is_matrix(variable) for variable in variables]
        rate_scales = rate_scales or [1.0] * len(variables)
        self.targets = self._matrices([raw(x) for x in variables])
        self.scales = [rate_ratio * x for x in self._matrices(rate_scales)]
        self.sums = [zeros_like(target) for target in self.targets]
        self.adamw = AdamW(
            self._others(variables),
            weight_decay=weight_decay,
            rate_scales=self._others(rate_scales),
            **adamw,
        )

    def state(self):
        """Returns the state for a checkpoint, by name."""
        return {**self.adamw.state(), "sums": self.sums}

    def apply(self, strategy, gradients, rate, wanted):
        """Updates the variables, as `AdamW.apply` does."""
        self.adamw.apply(strategy, self._others(gradients), rate, wanted)
        for target, gradient, total, scale in zip(
            self.targets,
            self._matrices(gradients),
            self.sums,
            self.scales,
            strict=True,
        ):
            strategy.extended.update(
                target,
                self._update_one,
                args=(gradient, total, rate, wanted),
                kwargs={"scale": scale},
                group=False,
            )

    def _update_one(self, w, gradient, total, rate, wanted, scale):
        rate = rate * scale
        new_total = self.momentum * total + gradient
        ahead = gradient + self.momentum * new_total
        rows, columns = w.shape[-2:]
        step = orthogonalize(tf.reshape(ahead, [rows, columns]))
        step *= 0.2 * max(rows, columns) ** 0.5
        new_w = w * (1 - rate * self.weight_decay)
        new_w -= rate * tf.reshape(step, w.shape)
        total.assign(tf.where(wanted, new_total, total))
        w.assign(tf.where(wanted, new_w, w))

    def _matrices(self, values):
        pairs = zip(values, self.is_matrix, strict=True)
        return [value for value, is_matrix in pairs if is_matrix]

    def _others(self, values):
        pairs = zip(values, self.is_matrix, strict=True)
        return [value for value, is_matrix in pairs if not is_matrix]


def orthogonalize(matrix):
    """Replaces the singular values of a matrix with values close to 1.

    After five steps of a Newton-Schulz iteration, they are between 0.7 and 1.2.
    Singular values below a thousandth of the matrix' norm may be smaller.

    Args:
        matrix: Float32 tensor of rank 2.

    Returns:
        Float32 tensor of the same shape.
    """
    a, b, c = _COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = tf.transpose(matrix) if is_tall else matrix
    x /= tf.norm(x) + 1e-7
    for _ in range(_ITERATIONS):
        square = tf.matmul(x, x, transpose_b=True)
        x = a * x + tf.matmul(b * square + c * tf.matmul(square, square), x)
    return tf.transpose(x) if is_tall else x


def _is_matrix(variable):
    """Returns whether a variable is the kernel of a 1 x 1 convolution.

    A 1 x 1 depthwise kernel has a single output per channel.
    """
    shape = tuple(variable.shape)
    return len(shape) == 4 and shape[:2] == (1, 1) and min(shape[2:]) > 1
