"""Cross entropy against soft targets."""

import tensorflow as tf


def smooth_labels(labels, classes, smoothing):
    """Spreads a fraction of each label evenly over all classes.

    Args:
        labels: Integer tensor of shape (batch,).
        classes: Integer, the number of classes.
        smoothing: The fraction.

    Returns:
        Float32 tensor of shape (batch, classes): smoothing / classes, and
        1 - smoothing more where the label is. Rows sum to 1.
    """
    off = smoothing / classes
    return tf.one_hot(labels, classes) * (1 - smoothing) + off


def soft_cross_entropy(targets, logits):
    """Computes the cross entropy of each image, in float32.

    Args:
        targets: Tensor of shape (batch, classes), rows that sum to 1.
        logits: Tensor of shape (batch, classes).

    Returns:
        Float32 tensor of shape (batch,).
    """
    log_probabilities = tf.nn.log_softmax(tf.cast(logits, tf.float32))
    targets = tf.cast(targets, tf.float32)
    return -tf.reduce_sum(targets * log_probabilities, axis=-1)
