"""Data on its way to the replicas."""

import tensorflow as tf


def local_replicas(context):
    """Counts the replicas that one worker feeds.

    Args:
        context: A `tf.distribute.InputContext`.

    Returns:
        Integer.
    """
    return context.num_replicas_in_sync // context.num_input_pipelines


def distribute(strategy, batches, replica_batch_size=None):
    """Divides each worker's batches among its replicas, in order.

    Args:
        strategy: A `tf.distribute.Strategy`.
        batches: Function of a `tf.distribute.InputContext` that gives a
            `tf.data.Dataset`: this worker's part of all batches, which are of
            one size.
        replica_batch_size: Integer, images per replica that are expected, or
            `None` for any.

    Returns:
        A distributed dataset.

    Raises:
        ValueError: If the batches are not of one size, or of another one.
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
            "All batches must be of one size, known in advance "
            "(drop_remainder=True, or padded): "
            f"{expected or f'a multiple of {replicas}'} images on this worker. "
            f"Received: batch size {size}"
        )
