"""A training loop in Keras 2 that can be interrupted at any time.

In the worker's process only.
"""

import os
import time

import numpy as np
import tensorflow as tf
import tf_keras
from absl import logging

from convmixer_tf.export.qat import exchange


def batch_of(step, images, labels, config):
    """Returns the batch of an update, which depends on its number and the seed.

    Args:
        step: Integer, the number of the update, from 0.
        images: uint8 array of pixels, at least one batch.
        labels: Integer array.
        config: A `TuningConfig`.

    Returns:
        float32 array of pixels, and integer array of labels.
    """
    epoch, place = divmod(step, len(images) // config.batch_size)
    rng = np.random.default_rng((config.seed, epoch))
    order = rng.permutation(len(images))
    mirrored = rng.random(len(images)) < 0.5
    chosen = order[place * config.batch_size :][: config.batch_size]
    pixels = np.float32(images[chosen])
    if config.flip:
        some = mirrored[chosen]
        pixels[some] = pixels[some, :, ::-1]
    return pixels, labels[chosen]


def train(model, images, labels, config, folder):
    """Trains a model to the end, from its last checkpoint if there is one.

    Images that do not fill a batch are dropped from an epoch.

    Args:
        model: A `tf_keras.Model` that returns logits.
        images: uint8 array of pixels, at least one batch.
        labels: Integer array, the class of each image.
        config: A `TuningConfig`.
        folder: Path of the folder that holds the checkpoints.

    Returns:
        Dictionary: `"loss"` and `"top1"`, the means over the last updates of
        this process, at most one epoch; and `"updates"`, the total number of
        updates.
    """
    steps_per_epoch = len(images) // config.batch_size
    steps = config.epochs * steps_per_epoch
    optimizer = tf_keras.optimizers.Adam(
        tf_keras.optimizers.schedules.CosineDecay(config.learning_rate, steps)
    )
    optimizer.build(model.trainable_variables)
    done = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(
        done=done, optimizer=optimizer, variables=list(model.variables)
    )
    manager = tf.train.CheckpointManager(
        checkpoint, os.path.join(folder, exchange.CHECKPOINTS), max_to_keep=2
    )
    if manager.latest_checkpoint:
        checkpoint.restore(manager.latest_checkpoint).assert_consumed()
        logging.info("Resuming from update %d of %d.", int(done), steps)
    update = _update_function(model, optimizer)
    scores, start = [], time.monotonic()
    for step in range(int(done), steps):
        loss, top1 = update(*batch_of(step, images, labels, config))
        scores.append((float(loss), float(top1)))
        done.assign(step + 1)
        if (step + 1) % config.log_every == 0 or step + 1 == steps:
            logging.info(
                "Update %d/%d: loss %.4f, top-1 %.2f %%, %.0f s",
                *(step + 1, steps),
                *np.mean(scores[-config.log_every :], axis=0) * (1, 100),
                time.monotonic() - start,
            )
        if (step + 1) % config.save_every == 0:
            manager.save()
    manager.save()
    last = scores[-steps_per_epoch:] or [(np.nan, np.nan)]
    loss, top1 = np.mean(last, axis=0)
    return {"updates": steps, "loss": float(loss), "top1": float(top1)}


def _update_function(model, optimizer):
    """Builds a function of a batch that returns its loss and its top-1."""
    loss_of = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def update(images, labels):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = loss_of(labels, logits)
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        right = tf.argmax(logits, axis=-1) == labels
        return loss, tf.reduce_mean(tf.cast(right, tf.float32))

    return update
