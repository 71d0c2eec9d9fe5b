"""Reads batches of images, some of which may be unreadable."""

import dataclasses
import logging
import os

import tensorflow as tf

from convmixer_tf.data.unreadable import why_unreadable
from convmixer_tf.files import printable_name
from convmixer_tf.validation import check_positive_integer

_LOG = logging.getLogger(__name__)

# Number of batches that are read and decoded at a time. The second one keeps
# all cores busy while the last images of the first one are decoded.
_BATCHES_IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True)
class Shard:
    """The part of the data that this process reads.

    Attributes:
        num_workers: Number of processes that train or evaluate together.
        worker: Index of this process.
    """

    num_workers: int = 1
    worker: int = 0

    def __post_init__(self):
        check_positive_integer("num_workers", self.num_workers)
        if not 0 <= self.worker < self.num_workers:
            raise ValueError(
                "Argument `worker` must be from 0 to num_workers - 1 = "
                f"{self.num_workers - 1}. Received: worker={self.worker}"
            )


def load_batches(groups, prepare, batch_size, on_lost):
    """Reads groups of examples into batches of a fixed size.

    An unreadable image stops neither its batch nor the epoch.

    Args:
        groups: A `tf.data.Dataset` of examples in groups of at most
            `batch_size`.
        prepare: As in `batch_loader`.
        batch_size: Number of images in a batch.
        on_lost: As in `batch_loader`.

    Returns:
        A `tf.data.Dataset` of tuples of tensors with `batch_size` rows.
    """
    return groups.map(
        batch_loader(prepare, batch_size, on_lost),
        num_parallel_calls=_BATCHES_IN_FLIGHT,
    )


def batch_loader(prepare, batch_size, on_lost):
    """Makes a function from a group of examples to a batch, for a graph.

    Args:
        prepare: Function from an example to a tuple of tensors of static shape.
            It raises an error if the image is unreadable.
        batch_size: Number of images in a batch.
        on_lost: Function `(names, loaded, position) -> tensors` that is called
            in the graph when images are missing. Its arguments are the names of
            the unreadable images, the loaded tensors, and their positions in
            the batch. It returns full batches.

    Returns:
        Function from a dictionary of tensors, of which `"name"` is one, to a
        tuple of tensors with `batch_size` rows.
    """

    def load(group):
        size = tf.shape(group["name"])[0]
        examples = tf.data.Dataset.from_tensor_slices((tf.range(size), group))
        loaded = examples.map(
            lambda position, example: (position, prepare(example)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        # If all images are unreadable, there is still an empty batch.
        loaded = loaded.ignore_errors().batch(batch_size)
        nothing = tf.nest.map_structure(
            lambda spec: tf.zeros([0, *spec.shape[1:]], spec.dtype),
            loaded.element_spec,
        )
        loaded = loaded.concatenate(tf.data.Dataset.from_tensors(nothing))
        position, tensors = loaded.take(1).get_single_element()

        def complete():
            lost = tf.scatter_nd(
                position[:, None], tf.ones_like(position), [size]
            )
            names = tf.boolean_mask(group["name"], lost == 0)
            return on_lost(names, tensors, position)

        tensors = tf.cond(
            tf.shape(position)[0] < batch_size, complete, lambda: tensors
        )
        return tuple(
            tf.ensure_shape(tensor, [batch_size, *tensor.shape[1:]])
            for tensor in tensors
        )

    return load


def check_labels(labels, class_names):
    """Adds a graph check that each label has a class name, if there are names.

    Args:
        labels: Integer tensor of shape (images,). A tensor of shape (images,
            classes), as in `ImageList`, is not checked.
        class_names: Names of the classes.

    Returns:
        The labels.
    """
    if labels.shape.rank == 2:
        return labels
    count = len(class_names)
    wrong = tf.boolean_mask(labels, (labels < 0) | (labels >= count))
    message = f"A label is not among the {count} class names:"
    known = tf.debugging.Assert(
        not count or tf.equal(tf.size(wrong), 0), [message, wrong]
    )
    with tf.control_dependencies([known]):
        return tf.identity(labels)


def readable_names(names):
    """Replaces bytes in file names that are not UTF-8 with U+FFFD, in a graph.

    If the text of a TensorFlow error is not UTF-8, Python raises a
    `UnicodeDecodeError` instead.

    Args:
        names: String tensor.

    Returns:
        String tensor of the same shape.
    """
    return tf.strings.unicode_transcode(names, "UTF-8", "UTF-8")


class UnreadableLog:
    """Logs and counts unreadable images.

    Attributes:
        count: Number of unreadable images so far.
    """

    def __init__(self):
        self.count = 0

    def write(self, names):
        """Adds a graph operation that logs the names of unreadable images.

        Args:
            names: String tensor of shape (images,).

        Returns:
            The operation.
        """
        return tf.numpy_function(self._write, [names], [], stateful=True)

    def _write(self, names):
        for name in map(os.fsdecode, names):
            self.count += 1
            # Records are not files of their own.
            why = why_unreadable(name) if os.path.lexists(name) else ""
            _LOG.warning(
                "Skipped an unreadable image, number %d so far: %s. %s",
                self.count,
                printable_name(name),
                why,
            )


def finish(batches, num_batches):
    """Declares the number of batches and prefetches.

    Autotuning is off: in TensorFlow 2.20 and 2.21 an iterator that ends often
    waits for the autotuning thread, up to as long as its data set was read.

    Args:
        batches: A `tf.data.Dataset`.
        num_batches: Number of batches.

    Returns:
        The data set. `tf.distribute` will not shard it again.
    """
    batches = batches.apply(
        tf.data.experimental.assert_cardinality(num_batches)
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.OFF
    )
    return batches.prefetch(2).with_options(options)
