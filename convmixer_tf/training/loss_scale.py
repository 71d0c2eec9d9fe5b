"""Loss scaling for float16 gradients."""

import tensorflow as tf


class LossScale(tf.Module):
    """A factor on the loss that keeps float16 gradients from underflowing.

    As in `torch.amp.GradScaler`, it is halved when a gradient overflows and
    doubled after 2,000 updates without overflow. It checks the gradient summed
    over replicas. `keras.optimizers.LossScaleOptimizer` checks only the first
    replica, so an overflow on another replica reaches the weights.

    Args:
        initial: Float, the initial factor.
        growth_interval: Integer, updates without overflow before doubling.
    """

    def __init__(self, initial=2.0**16, growth_interval=2000):
        super().__init__()
        self.growth_interval = growth_interval
        self.factor = tf.Variable(initial, trainable=False)
        self.good_steps = tf.Variable(0, trainable=False, dtype=tf.int64)

    def apply(self, strategy, finite):
        """Updates the factor. For a cross-replica context (`merge_call`).

        Args:
            strategy: The strategy in whose scope this object was created.
            finite: Boolean tensor, whether the gradient was finite.
        """
        strategy.extended.update(
            self.factor,
            self._update,
            args=(self.good_steps, finite),
            group=False,
        )

    def _update(self, factor, good_steps, finite):
        count = tf.where(finite, good_steps + 1, 0)
        grow = count >= self.growth_interval
        kept = tf.where(grow, factor * 2, factor)
        factor.assign(tf.where(finite, kept, factor / 2))
        good_steps.assign(tf.where(grow, tf.zeros_like(count), count))
