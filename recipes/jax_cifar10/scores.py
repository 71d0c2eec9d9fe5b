"""How well a classifier does, in NumPy."""

import numpy as np


def score(labels, logits):
    """Compares logits with labels, as `convmixer_tf.training.evaluation` does.

    Args:
        labels: Integer array of shape (images,).
        logits: float32 array of shape (images, classes).

    Returns:
        Dictionary of the mean cross entropy `"loss"`, in nats, and the
        fractions `"top1"` and `"top5"`.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    # Written so that a NaN counts as better than anything.
    better = ~(logits <= own) | ((logits == own) & earlier)
    ranks = better.sum(axis=1)
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    losses = log_sum - np.take_along_axis(shifted, labels[:, None], 1)[:, 0]
    return {
        "loss": float(losses.mean()),
        "top1": float(np.mean(ranks < 1)),
        "top5": float(np.mean(ranks < 5)),
    }
