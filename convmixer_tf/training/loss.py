"""Cross-entropy losses."""

import keras
import tensorflow as tf


def cross_entropy(labels, logits):
    """Computes the cross-entropy of each image, in float32.

    Args:
        labels: Integer tensor of shape (batch,), or floating-point tensor of
            shape (batch, classes), the target distribution of each image after
            label smoothing and mixing.
        logits: Tensor of shape (batch, classes).

    Returns:
        Float32 tensor of shape (batch,), in nats.
    """
    log_probabilities = tf.nn.log_softmax(tf.cast(logits, tf.float32))
    if labels.shape.rank == 1:
        labels = tf.one_hot(labels, logits.shape[-1])
    return -tf.reduce_sum(tf.cast(labels, tf.float32) * log_probabilities, -1)


def binary_cross_entropy(labels, logits):
    """Computes the binary cross-entropy of each image, in float32.

    Args:
        labels: Tensor of shape (batch, classes), 1 for the classes of an image
            and 0 for others, or values in between.
        logits: Tensor of shape (batch, classes).

    Returns:
        Float32 tensor of shape (batch,), in nats, the mean over the classes.
    """
    losses = tf.nn.sigmoid_cross_entropy_with_logits(
        tf.cast(labels, tf.float32), tf.cast(logits, tf.float32)
    )
    return tf.reduce_mean(losses, axis=-1)


def focal_loss(labels, logits):
    """Computes the binary focal loss of each image, in float32.

    Outputs that are already right have little weight. The many classes that
    an image does not have therefore do not outweigh the few that it has.

    Reference: Lin et al., "Focal Loss for Dense Object Detection",
    https://arxiv.org/abs/1708.02002, without its factor alpha.

    Args:
        labels: As for `binary_cross_entropy`.
        logits: Tensor of shape (batch, classes).

    Returns:
        Float32 tensor of shape (batch,), in nats, the mean over the classes.
    """
    labels, logits = tf.cast(labels, tf.float32), tf.cast(logits, tf.float32)
    return keras.losses.binary_focal_crossentropy(
        labels, logits, gamma=2.0, from_logits=True
    )
