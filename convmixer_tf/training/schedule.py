"""Learning rate schedules, functions of the number of updates so far."""

import math

import tensorflow as tf


def make_schedule(config):
    """Builds the learning rate schedule.

    Args:
        config: A `TrainConfig`.

    Returns:
        A function of an integer tensor of any shape, the number of previous
        updates. It returns a float32 tensor of the same shape.
    """
    if config.schedule == "piecewise":
        return lambda step: piecewise_linear(
            step, config.learning_rate, config.epochs, config.steps_per_epoch
        )
    if config.schedule == "cosine":
        warmup = round(config.warmup_epochs * config.steps_per_epoch)
        return lambda step: cosine_with_warmup(
            step,
            config.learning_rate,
            config.final_learning_rate,
            warmup,
            config.total_steps,
        )
    return lambda step: tf.fill(tf.shape(step), config.learning_rate)


def piecewise_linear(step, peak, epochs, steps_per_epoch):
    """Computes the authors' learning rate, which they call "onecycle".

    It is not PyTorch's `OneCycleLR`. It is piecewise linear between (0, 0),
    (2/5 epochs, peak), (4/5 epochs, peak / 20) and (epochs, 0). The time is
    counted in epochs after the update, so the last update changes no weight.
    The corners are rounded down to whole epochs.

    Source: `--sched onecycle` of the timm fork in
    https://github.com/locuslab/convmixer

    Args:
        step: Integer tensor, updates made before.
        peak: Float, the largest value.
        epochs: Integer, the length of the run.
        steps_per_epoch: Integer, updates per epoch.

    Returns:
        Float32 tensor of the shape of `step`.
    """
    times = (0, epochs * 2 // 5, epochs * 4 // 5, epochs)
    rates = (0.0, peak, peak / 20, 0.0)
    time = (tf.cast(step, tf.float32) + 1) / steps_per_epoch
    rate = tf.zeros_like(time)
    for i in (2, 1, 0):
        width = times[i + 1] - times[i]
        if width:  # Short runs do not have the first pieces.
            slope = (rates[i + 1] - rates[i]) / width
            piece = rates[i] + slope * (time - times[i])
            rate = tf.where(time < times[i + 1], piece, rate)
    return rate


def cosine_with_warmup(step, peak, final, warmup_steps, total_steps):
    """Computes a linear warm-up followed by half a cosine.

    It equals PyTorch's `SequentialLR` of a `LinearLR` (from peak /
    warmup_steps) and a `CosineAnnealingLR`.

    Args:
        step: Integer tensor, updates made before.
        peak: Float, the largest value.
        final: Float, the value that the cosine ends at.
        warmup_steps: Integer, updates of warm-up.
        total_steps: Integer, updates of the whole run.

    Returns:
        Float32 tensor of the shape of `step`.
    """
    step = tf.cast(step, tf.float32)
    warmup = peak * (step + 1) / max(warmup_steps, 1)
    angle = math.pi * (step - warmup_steps) / (total_steps - warmup_steps)
    cosine = final + (peak - final) * (1 + tf.cos(angle)) / 2
    return tf.where(step < warmup_steps, warmup, cosine)
