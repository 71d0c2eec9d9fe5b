"""The authors' learning rate, in NumPy."""

import numpy as np


def learning_rate(step, config):
    """Computes what `convmixer_tf.training.schedule.piecewise_linear` does.

    Args:
        step: Integer, updates made before.
        config: Namespace with `learning_rate`, `epochs`, `steps_per_epoch`.

    Returns:
        Float.
    """
    epochs, peak = config.epochs, config.learning_rate
    times = (0, epochs * 2 // 5, epochs * 4 // 5, epochs)
    rates = (0.0, peak, peak / 20, 0.0)
    # A run of few epochs lacks the first pieces: of equal times, the last.
    points = dict(zip(times, rates, strict=True))
    time = (step + 1) / config.steps_per_epoch
    return float(np.interp(time, list(points), list(points.values())))
