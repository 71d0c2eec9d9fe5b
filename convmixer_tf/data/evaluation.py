"""Evaluation batches, with every image exactly once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from convmixer_tf.data.cropping import CROP_FRACTION
from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.data.decoding import ORIENTATION
from convmixer_tf.data.decoding import decode_image
from convmixer_tf.data.loading import Shard
from convmixer_tf.data.loading import UnreadableLog
from convmixer_tf.data.loading import batch_loader
from convmixer_tf.data.loading import check_labels
from convmixer_tf.data.loading import finish
from convmixer_tf.data.loading import load_batches
from convmixer_tf.data.loading import readable_names
from convmixer_tf.data.pillow import with_pillow
from convmixer_tf.data.validation import check_range
from convmixer_tf.validation import check_orientation
from convmixer_tf.validation import check_positive_integer

if TYPE_CHECKING:
    from convmixer_tf.data.datasets import ImageList
    from convmixer_tf.data.records import ImageRecords


def evaluation_batches(
    dataset: ImageList | ImageRecords,
    image_size: int,
    batch_size: int,
    *,
    crop_fraction: float = CROP_FRACTION,
    orientation: str = ORIENTATION,
    skip_unreadable: bool = False,
    shard: Shard | None = None,
) -> tf.data.Dataset:
    """Yields every image exactly once, in batches of a fixed size.

    The last batch is padded with zeros of weight 0. All workers get the same
    number of batches, some of which may be padding. The batches can be passed
    to `keras.Model.evaluate`.

    Args:
        dataset: Data set from `open_dataset`.
        image_size: Side of the images, in pixels.
        batch_size: Images per batch.
        crop_fraction: As in `resize_and_center_crop`.
        orientation: As in `decode_image`.
        skip_unreadable: Whether to log unreadable images and give them weight 0
            instead of raising an error.
        shard: A `Shard`. Defaults to a single worker.

    Returns:
        A `tf.data.Dataset` of triples: images, float32 of shape (batch_size,
        image_size, image_size, 3), in pixels; labels, int64 of shape
        (batch_size,), or (batch_size, classes) as in `ImageList`; weights,
        float32 of shape (batch_size,), 1 for an image and 0 for padding.

    Raises:
        ValueError: If an argument is out of range.
        tf.errors.InvalidArgumentError: While iterating, if an image is
            unreadable; the message names it.
    """
    shard = shard or Shard()
    check_positive_integer("image_size", image_size)
    check_positive_integer("batch_size", batch_size)
    check_range("crop_fraction", crop_fraction, 0.01, 1)
    check_orientation(orientation)

    def prepare(example):
        encoded, label = dataset.read(example["record"])
        image = resize_and_center_crop(
            decode_image(encoded, orientation), image_size, crop_fraction
        )
        return image, label, tf.constant(1.0)

    log = UnreadableLog() if skip_unreadable else None
    groups = dataset.examples().shard(shard.num_workers, shard.worker)
    groups = groups.batch(batch_size)
    # Other workers may have one more batch.
    per_worker = -(-len(dataset) // shard.num_workers)
    num_batches = -(-per_worker // batch_size)
    nothing = tf.nest.map_structure(
        lambda spec: tf.zeros([0], spec.dtype), groups.element_spec
    )
    padding = tf.data.Dataset.from_tensors(nothing).repeat()
    groups = groups.concatenate(padding).take(num_batches)
    batches = load_batches(
        groups,
        prepare,
        batch_size,
        on_lost=lambda *args: _pad(log, batch_size, *args),
    )
    batches = batches.map(
        lambda images, labels, weights: (
            tf.cast(images, tf.float32),
            check_labels(labels, dataset.class_names),
            weights,
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return finish(batches, num_batches)


def batch_decoder(image_size, batch_size, crop_fraction, orientation):
    """Makes a function that decodes images as `evaluation_batches` does.

    Args:
        image_size: Side of the images, in pixels.
        batch_size: Integer, the most images at a time.
        crop_fraction: As in `resize_and_center_crop`.
        orientation: As in `decode_image`.

    Returns:
        Function from a list of bytes to two arrays: images, float32 of shape
        (batch_size, image_size, image_size, 3), and whether each was read.
    """

    def prepare(example):
        image = decode_image(with_pillow(example["name"]), orientation)
        image = resize_and_center_crop(image, image_size, crop_fraction)
        return image, tf.constant(True)

    load = batch_loader(
        prepare,
        batch_size,
        lambda _, tensors, position: _fill(batch_size, tensors, position),
    )
    graph = tf.function(
        lambda encoded: load({"name": encoded}),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )

    def decode(contents):
        images, is_read = graph(tf.constant(contents, tf.string))
        return np.float32(images.numpy()), is_read.numpy()

    return decode


def _fill(batch_size, tensors, position):
    """Puts what was loaded to its positions in a batch of zeros."""
    return tuple(
        tf.scatter_nd(
            position[:, None],
            tensor,
            tf.concat([[batch_size], tf.shape(tensor)[1:]], axis=0),
        )
        for tensor in tensors
    )


def _pad(log, batch_size, names, tensors, position):
    """Pads with zeros. Logs unreadable images or raises an error."""
    if log:
        report = log.write(names)
    else:
        report = tf.debugging.Assert(
            tf.size(names) == 0,
            [
                "Unreadable image. Repair or remove it, or pass "
                "skip_unreadable=True:",
                readable_names(names),
            ],
        )
    with tf.control_dependencies([report]):
        return _fill(batch_size, tensors, position)
