"""Distributes data to the replicas."""

import tensorflow as tf


def local_replicas(context):
    """Returns the number of replicas that one worker feeds.

    Args:
        context: A `tf.distribute.InputContext`.

    Returns:
        Integer.
    """
    return context.num_replicas_in_sync // context.num_input_pipelines


def distribute(strategy, batches, replica_batch_size=None):
    """Splits each worker's batches among its replicas, in order.

    Args:
        strategy: A `tf.distribute.Strategy`.
        batches: Function of a `tf.distribute.InputContext` that returns a
            `tf.data.Dataset`: this worker's part of all batches, which have the
            same size.
        replica_batch_size: Integer, the expected number of images per replica,
            or `None` for any.

    Returns:
        A distributed dataset.

    Raises:
        ValueError: If the batches have different sizes or a wrong size.
    """

    def parts(context):
        dataset = batches(context)
        replicas = local_replicas(context)
        size = tf.nest.flatten(dataset.element_spec)[0].shape[0]
        expected = replica_batch_size and replica_batch_size * replicas
        _check_size(size, expected, replicas)
        return dataset.rebatch(size // replicas, drop_remainder=True)

    return strategy.distribute_datasets_from_function(parts)


def _check_size(size, expected, replicas):
    if size is None or size % replicas or size != (expected or size):
        raise ValueError(
            "All batches must have the same static size "
            "(drop_remainder=True, or padded): "
            f"{expected or f'a multiple of {replicas}'} images on this worker. "
            f"Received: batch size {size}"
        )
