"""Applies a different function to each image of a batch."""

import tensorflow as tf


def apply_chosen(images, choice, value, branches):
    """Groups the images by their choice and processes each group at once.

    Branching for each image takes more time than most of the operations because
    TensorFlow visits the nodes of every branch that is not taken.

    Args:
        images: Tensor of shape (batch, height, width, 3).
        choice: int32 tensor of shape (batch,), the index of each image's
            branch. Images with `len(branches)` stay unchanged.
        value: Tensor of shape (batch,), the argument of each image.
        branches: Functions `(images, value) -> images`, which must accept an
            empty batch.

    Returns:
        Tensor like `images`.
    """
    count = len(branches) + 1
    images_of = tf.dynamic_partition(images, choice, count)
    values_of = tf.dynamic_partition(value, choice, count)
    position_of = tf.dynamic_partition(
        tf.range(tf.shape(images)[0]), choice, count
    )
    for index, branch in enumerate(branches):
        images_of[index] = branch(images_of[index], values_of[index])
    stitched = tf.dynamic_stitch(position_of, images_of)
    return tf.ensure_shape(stitched, images.shape)
