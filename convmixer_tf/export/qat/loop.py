"""The training of the twin, which can be stopped at any time.

In the worker's process only.
"""

import os
import time

import numpy as np
import tensorflow as tf
import tf_keras
from absl import logging

from convmixer_tf.export.qat import exchange


def count_steps(images, config):
    """Counts the updates of an epoch; images that fill no batch are left.

    Args:
        images: Integer, how many there are.
        config: A `TuningConfig`.

    Returns:
        Integer, at least 1.
    """
    return max(1, images // config.batch_size)


def batch_of(step, images, labels, config):
    """Gives the batch of an update: a function of its number and the seed.

    Args:
        step: Integer, the number of the update, from 0.
        images: uint8 array of pixels.
        labels: Integer array.
        config: A `TuningConfig`.

    Returns:
        float32 array of pixels, and integer array of labels.
    """
    epoch, place = divmod(step, count_steps(len(images), config))
    rng = np.random.default_rng((config.seed, epoch))
    order = rng.permutation(len(images))
    mirrored = rng.random(len(images)) < 0.5
    chosen = order[place * config.batch_size :][: config.batch_size]
    pixels = np.float32(images[chosen])
    if config.flip:
        some = mirrored[chosen]
        pixels[some] = pixels[some, :, ::-1]
    return pixels, labels[chosen]


def train(twin, method, images, labels, config, folder):
    """Trains a twin to the end, from where it was stopped if it was.

    Args:
        twin: A `Twin`.
        method: One of the classes of `methods`, prepared.
        images: uint8 array of pixels.
        labels: Integer array, the right output of each.
        config: A `TuningConfig`.
        folder: Where the checkpoints are.

    Returns:
        Dictionary: the loss and the top-1 of the last updates' batches, up to
        an epoch, and the number of updates.
    """
    steps = config.epochs * count_steps(len(images), config)
    optimizer = tf_keras.optimizers.Adam(
        tf_keras.optimizers.schedules.CosineDecay(config.learning_rate, steps)
    )
    optimizer.build(twin.model.trainable_variables)
    done = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(
        done=done, optimizer=optimizer, variables=list(twin.model.variables)
    )
    manager = tf.train.CheckpointManager(
        checkpoint, os.path.join(folder, exchange.CHECKPOINTS), max_to_keep=2
    )
    if manager.latest_checkpoint:
        checkpoint.restore(manager.latest_checkpoint).assert_consumed()
        logging.info("Goes on from update %d of %d.", int(done), steps)
    update = _update(twin.model, optimizer)
    log = _Log(int(done), steps, config)
    for step in range(int(done), steps):
        method.before_step()
        loss, right = update(*batch_of(step, images, labels, config))
        log.add(step + 1, float(loss), float(right))
        done.assign(step + 1)
        if (step + 1) % config.save_every == 0:
            manager.save()
    manager.save()
    return {"updates": steps, **log.means(count_steps(len(images), config))}


def _update(model, optimizer):
    measure = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def update(images, labels):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = measure(labels, logits)
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        best = tf.argmax(logits, axis=-1)
        right = tf.reduce_mean(tf.cast(best == labels, tf.float32))
        return loss, right

    return update


class _Log:
    """Says from time to time how far it is."""

    def __init__(self, done, steps, config):
        self._first, self._steps, self._config = done, steps, config
        self._found, self._start = [], None

    def add(self, step, loss, right):
        self._found.append((loss, right))
        if self._start is None:  # Most of the first one is tracing.
            self._start = time.monotonic()
        if step % self._config.log_every and step != self._steps:
            return
        means = self.means(self._config.log_every)
        spent = time.monotonic() - self._start
        each = spent / max(1, step - self._first - 1)
        logging.info(
            "Update %d/%d: loss %.4f, top-1 %.2f %%, %.0f images/s, "
            "%.0f s left",
            *(step, self._steps, means["loss"], 100 * means["top1"]),
            self._config.batch_size / max(each, 1e-9),
            each * (self._steps - step),
        )

    def means(self, last):
        """Averages the last so many updates of this process."""
        loss, right = np.mean(self._found[-last:] or [(np.nan,) * 2], axis=0)
        return {"loss": float(loss), "top1": float(right)}
