"""Loss scaling, for gradients that float16 can't hold."""

import tensorflow as tf


class LossScale(tf.Module):
    """A factor on the loss that keeps float16 gradients from underflowing.

    It halves when a gradient overflows and doubles after 2,000 updates in
    which none does, as `torch.amp.GradScaler` has it. It judges the gradient
    summed over replicas: `keras.optimizers.LossScaleOptimizer` looks at the
    first replica's alone, and an overflow elsewhere reaches the weights.

    Args:
        initial: Float, the factor at the start.
        growth_interval: Integer, updates without overflow before it doubles.
    """

    def __init__(self, initial=2.0**16, growth_interval=2000):
        super().__init__()
        self.growth_interval = growth_interval
        self.factor = tf.Variable(initial, trainable=False)
        self.good_steps = tf.Variable(0, trainable=False, dtype=tf.int64)

    def apply(self, strategy, finite):
        """Adapts the factor. For a cross-replica context (`merge_call`).

        Args:
            strategy: The strategy under which this was made.
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
