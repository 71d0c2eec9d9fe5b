"""Augmented batches for training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from convmixer_tf.data.color_jitter import color_jitter_with
from convmixer_tf.data.decoding import ORIENTATION
from convmixer_tf.data.erasing import random_erase
from convmixer_tf.data.light import keras_cv_augment
from convmixer_tf.data.loading import Shard
from convmixer_tf.data.loading import UnreadableLog
from convmixer_tf.data.loading import check_labels
from convmixer_tf.data.loading import finish
from convmixer_tf.data.loading import load_batches
from convmixer_tf.data.loading import readable_names
from convmixer_tf.data.mixing import mix
from convmixer_tf.data.mixing import smooth_labels
from convmixer_tf.data.rand_augment import rand_augment_with
from convmixer_tf.data.validation import check_non_negative_integer
from convmixer_tf.validation import check_orientation
from convmixer_tf.validation import check_positive_integer

if TYPE_CHECKING:
    from convmixer_tf.data.augmentation import Augmentation
    from convmixer_tf.data.datasets import ImageList
    from convmixer_tf.data.records import ImageRecords


def train_batches(
    dataset: ImageList | ImageRecords,
    augmentation: Augmentation,
    image_size: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    skip_steps: int = 0,
    replicas: int = 1,
    orientation: str = ORIENTATION,
    shard: Shard | None = None,
) -> tf.data.Dataset:
    """Yields the augmented batches of one epoch.

    The order depends only on `(seed, epoch)`. Crops, flips, RandAugment and
    jitter depend only on `(seed, epoch, image)`, even with alternating flips.
    Mixing and erasing depend only on `(seed, epoch, step, replica)`. Nothing
    depends on earlier calls, on the number of cores or on how images are
    distributed over workers and replicas, so `skip_steps` resumes an
    interrupted epoch exactly. The exception is `Augmentation.keras_cv`, which
    uses its own random numbers.

    An unreadable image is logged with its name and number and replaced by its
    successor in the batch. The steps and all other images stay the same.

    Args:
        dataset: Data set from `open_dataset`.
        augmentation: An `Augmentation`.
        image_size: Side of the images, in pixels.
        batch_size: Images per replica.
        seed: Non-negative integer that controls all randomness.
        epoch: Number of the epoch, from 0.
        skip_steps: Number of steps to skip at the start.
        replicas: Number of replicas that share a batch. Each one has a
            contiguous part of the batch and mixes images within that part.
        orientation: As in `decode_image`.
        shard: A `Shard`. Defaults to a single worker.

    Returns:
        A `tf.data.Dataset` of pairs: images, uint8 of shape
        (batch_size * replicas, image_size, image_size, 3), in pixels, or
        float32 if they are erased or augmented by keras-cv; and labels,
        float32 of shape (batch_size * replicas, classes). Its length is the
        number of remaining steps of the epoch. Images that do not fill a batch
        are dropped, different ones in each epoch.

    Raises:
        ValueError: If an argument is out of range, or there is no full batch.
    """
    shard = shard or Shard()
    for name, value in (
        ("image_size", image_size),
        ("batch_size", batch_size),
        ("replicas", replicas),
    ):
        check_positive_integer(name, value)
    check_orientation(orientation)
    for name, value in (("seed", seed), ("epoch", epoch)):
        check_non_negative_integer(name, value)
    local = batch_size * replicas
    steps = len(dataset) // (local * shard.num_workers)
    if steps < 1:
        raise ValueError(
            "Argument `batch_size` must be small enough for one batch of the "
            f"{len(dataset)} images on {replicas * shard.num_workers} "
            f"replicas. Received: batch_size={batch_size}"
        )
    if not 0 <= skip_steps <= steps:
        raise ValueError(
            f"Argument `skip_steps` must be from 0 to {steps}, the number of "
            f"steps of an epoch. Received: skip_steps={skip_steps}"
        )
    image_seed, batch_seed, layer_seed = _seeds(seed, epoch)

    examples = dataset.examples(
        seed,
        epoch,
        repeats=augmentation.repeats,
        skip=skip_steps * local * shard.num_workers,
    )
    examples = examples.shard(shard.num_workers, shard.worker)
    groups = examples.batch(local, drop_remainder=True)
    groups = groups.map(lambda group: _deal(group, replicas))

    log = UnreadableLog()
    batches = load_batches(
        groups,
        lambda example: _prepare(
            *(
                dataset,
                augmentation,
                image_size,
                orientation,
                example,
                image_seed,
            ),
            first_flip=(_seeds(seed, 0)[0], epoch % 2)
            if augmentation.alternate_flips
            else None,
        ),
        local,
        on_lost=lambda *args: _replace(log, local, *args),
    )

    def augment(step, tensors):
        # Replicas are numbered in the order in which they get examples.
        first = step * shard.num_workers * replicas + shard.worker
        return _augment(
            tensors,
            augmentation,
            dataset.class_names,
            [
                tf.stack([batch_seed, first + part * shard.num_workers])
                for part in range(replicas)
            ],
        )

    batches = batches.enumerate(skip_steps).map(
        augment, num_parallel_calls=tf.data.AUTOTUNE
    )
    if augmentation.keras_cv:
        batches = batches.map(
            keras_cv_augment(layer_seed, augmentation.keras_cv)
        )
    return finish(batches, steps - skip_steps)


def _seeds(seed, epoch):
    """Returns the seeds for images, for steps and for the epoch."""
    image, step, layer = np.random.SeedSequence([seed, epoch]).generate_state(3)
    return tf.constant(image, tf.int64), tf.constant(step, tf.int64), int(layer)


def _deal(group, replicas):
    """Distributes examples to replicas in turn, as `shard` does to workers."""

    def deal(tensor):
        dealt = tf.transpose(tf.reshape(tensor, [-1, replicas]))
        return tf.reshape(dealt, [-1])

    return tf.nest.map_structure(deal, group)


def _prepare(
    dataset, augmentation, image_size, orientation, example, seed, first_flip
):
    """Reads, decodes, crops and flips an image. Draws numbers for later."""
    encoded, label = dataset.read(example["record"])
    counts = [1, augmentation.crop.num_draws, *_num_batch_draws(augmentation)]
    # A single call, because each one takes as long as cropping.
    draws = tf.random.stateless_uniform(
        [sum(counts)], tf.stack([seed, example["key"]])
    )
    flip, crop, *batch_draws = tf.split(draws, counts)
    is_flipped = flip[0] < augmentation.flip
    if first_flip:
        first_seed, is_odd = first_flip
        first = tf.random.stateless_uniform(
            [], tf.stack([first_seed, example["key"]])
        )
        is_flipped = (first < augmentation.flip) != bool(is_odd)
    image = augmentation.crop(
        encoded, image_size, crop, is_flipped, orientation
    )
    image = tf.ensure_shape(image, [image_size, image_size, 3])
    return image, label, *batch_draws


def _num_batch_draws(augmentation):
    """Returns the random numbers per image that batch operations need."""
    return [
        step.num_draws if step else 0
        for step in (augmentation.rand_augment, augmentation.color_jitter)
    ]


def _replace(log, batch_size, names, tensors, position):
    """Replaces each missing image with its successor."""
    count = tf.shape(position)[0]
    some = tf.debugging.Assert(
        count > 0,
        ["No image of a batch could be read:", readable_names(names)],
        summarize=9,
    )
    source = tf.searchsorted(position, tf.range(batch_size))
    source = tf.minimum(source, count - 1)
    with tf.control_dependencies([log.write(names), some]):
        return tuple(tf.gather(tensor, source) for tensor in tensors)


def _augment(tensors, augmentation, class_names, replica_seeds):
    """Applies the operations on whole batches."""
    images, labels, policy_draws, jitter_draws = tensors
    if augmentation.rand_augment:
        images = rand_augment_with(
            policy_draws, images, augmentation.rand_augment
        )
    if augmentation.color_jitter:
        images = color_jitter_with(
            jitter_draws, images, augmentation.color_jitter
        )
    labels = check_labels(labels, class_names)
    if labels.shape.rank == 1:
        smoothing = augmentation.label_smoothing
        labels = smooth_labels(labels, len(class_names), smoothing)
    labels = tf.cast(labels, tf.float32)
    parts = [
        _mix_and_erase(*part, augmentation)
        for part in zip(
            tf.split(images, len(replica_seeds)),
            tf.split(labels, len(replica_seeds)),
            replica_seeds,
            strict=True,
        )
    ]
    if len(parts) == 1:
        return parts[0]
    return tuple(tf.concat(part, axis=0) for part in zip(*parts, strict=True))


def _mix_and_erase(images, labels, seed, augmentation):
    mix_seed, erase_seed = tf.unstack(tf.random.split(seed))
    if augmentation.mixing:
        images, labels = mix(images, labels, mix_seed, augmentation.mixing)
    if augmentation.erasing:
        images = tf.cast(images, tf.float32)
        images = random_erase(images, erase_seed, augmentation.erasing)
    return images, labels
