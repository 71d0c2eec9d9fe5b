"""AdamW with PyTorch's arithmetic, on mirrored variables."""

import math
import re

import keras
import tensorflow as tf


class AdamW(tf.Module):
    """Adam with decoupled weight decay, with the same steps as PyTorch.

    `keras.optimizers.AdamW` adds epsilon to the root of the *uncorrected*
    second moment. With the authors' epsilon of 1e-3, the first thousand updates
    differ greatly. Keras also cannot clip a gradient after it is summed over
    replicas. Here the caller sums and clips, and passes the final gradients.

    Reference: Loshchilov and Hutter, "Decoupled Weight Decay Regularization",
    https://arxiv.org/abs/1711.05101; `torch.optim.AdamW`.

    Args:
        variables: List of the `keras.Variable` or `tf.Variable` to train.
        beta_1: Decay of the gradient's running mean, per update.
        beta_2: Decay of the squared gradient's running mean, per update.
        epsilon: Added to the root of the latter after bias correction.
        weight_decay: Fraction of a weight that is subtracted from it per
            update, times the learning rate.
        decay_all: Boolean. If false, variables of rank 0 and 1 (biases, and
            the scales and offsets of normalizations) do not decay.
        rate_scales: List of floats, the factor on the learning rate of each
            variable. Defaults to 1.
    """

    def __init__(
        self,
        variables,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        weight_decay=1e-2,
        decay_all=False,
        rate_scales=None,
    ):
        super().__init__()
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.targets = [raw(variable) for variable in variables]
        self.decays = [
            weight_decay if decay_all or len(variable.shape) > 1 else 0.0
            for variable in variables
        ]
        self.rate_scales = rate_scales or [1.0] * len(variables)
        self.means = [zeros_like(target) for target in self.targets]
        self.squares = [zeros_like(target) for target in self.targets]
        self.updates = tf.Variable(0, trainable=False, dtype=tf.int64)

    def state(self):
        """Returns the state for a checkpoint, by name."""
        return {
            "means": self.means,
            "squares": self.squares,
            "updates": self.updates,
        }

    def apply(self, strategy, gradients, rate, wanted):
        """Updates the variables. For a cross-replica context (`merge_call`).

        Args:
            strategy: The strategy in whose scope the variables were created.
            gradients: List of tensors, the same on every replica.
            rate: Float32 tensor, the learning rate.
            wanted: Boolean tensor. If false, nothing changes.
        """
        strategy.extended.update(
            self.updates,
            lambda count, wanted: count.assign_add(tf.cast(wanted, tf.int64)),
            args=(wanted,),
            group=False,
        )
        rows = zip(
            self.targets,
            gradients,
            self.means,
            self.squares,
            self.decays,
            self.rate_scales,
            strict=True,
        )
        for target, gradient, mean, square, decay, scale in rows:
            strategy.extended.update(
                target,
                self._update_one,
                args=(gradient, mean, square, self.updates, rate, wanted),
                kwargs={"decay": decay, "scale": scale},
                group=False,
            )

    def _update_one(
        self, w, gradient, mean, square, count, rate, wanted, decay, scale
    ):
        rate = rate * scale
        new_mean = mean + (gradient - mean) * (1 - self.beta_1)
        new_square = square + (gradient * gradient - square) * (1 - self.beta_2)
        step_size = rate / _bias_correction(self.beta_1, count)
        root = tf.sqrt(new_square / _bias_correction(self.beta_2, count))
        new_w = w * (1 - rate * decay) - step_size * new_mean / (
            root + self.epsilon
        )
        # A selection; a TPU would have to wait for a condition.
        for variable, value in (
            (mean, new_mean),
            (square, new_square),
            (w, new_w),
        ):
            variable.assign(tf.where(wanted, value, variable))


def layer_rates(variables, decay):
    """Computes layer-wise learning rate decay.

    Args:
        variables: List of a ConvMixer's `keras.Variable`.
        decay: Float, the factor from one block to the previous block.

    Returns:
        List of floats: 1 for the classifier, `decay` for the last block, and
        so on down to the patch embedding.
    """
    levels = [_level(variable.path) for variable in variables]
    top = 1 + max((level for level in levels if level is not None), default=0)
    return [decay ** (0 if x is None else top - x) for x in levels]


def clip_by_global_norm(gradients, clip_norm):
    """Clips gradients to a norm, like `torch.nn.utils.clip_grad_norm_`.

    Args:
        gradients: List of float tensors.
        clip_norm: Float, the maximum global L2 norm, or `None`.

    Returns:
        The gradients, and their global L2 norm before clipping.
    """
    norm = tf.linalg.global_norm(gradients)
    if clip_norm is None:
        return gradients, norm
    factor = tf.minimum(clip_norm / (norm + 1e-6), 1.0)
    return [gradient * factor for gradient in gradients], norm


def raw(variable):
    """Returns the `tf.Variable` within a `keras.Variable`."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def zeros_like(variable):
    """Creates a variable of zeros with the shape of another variable."""
    return tf.Variable(tf.zeros(variable.shape), trainable=False)


def _level(path):
    if match := re.search(r"\bblock_(\d+)/", path):
        return int(match[1]) + 1
    return 0 if path.startswith("patch_embed/") else None


def _bias_correction(beta, count):
    # 1 - beta**count, without the cancellation in 1 - 0.999.
    if not beta:
        return 1.0
    return -tf.math.expm1(tf.cast(count, tf.float32) * math.log(beta))
