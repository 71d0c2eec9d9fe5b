"""Classification metrics with confidence intervals."""

import numpy as np

from convmixer_tf.intervals import wilson_interval


def classification_metrics(logits: np.ndarray, targets: np.ndarray) -> dict:
    """Computes metrics for single-label classification.

    Args:
        logits: Array of shape (images, classes).
        targets: Array of shape (images, classes), 1 for the image's class.

    Returns:
        Dictionary: `"images"`; `"top1"` and its `"interval"`;
        `"balanced_accuracy"`, the mean accuracy over classes; `"chance"`, the
        top-1 of always predicting the most frequent class; `"loss"`, the mean
        cross-entropy.
    """
    labels = targets.argmax(axis=-1)
    right = logits.argmax(axis=-1) == labels
    counts = targets.sum(axis=0)
    hits = (targets * right[:, None]).sum(axis=0)
    top = logits.max(axis=-1, keepdims=True)
    sums = np.log(np.exp(logits - top).sum(axis=-1)) + top[:, 0]
    return {
        "images": len(labels),
        "top1": float(right.mean()),
        "interval": wilson_interval(int(right.sum()), len(labels)),
        "balanced_accuracy": float((hits / counts.clip(1))[counts > 0].mean()),
        "chance": float(counts.max() / len(labels)),
        "loss": float((sums - (targets * logits).sum(axis=-1)).mean()),
    }


def multi_label_metrics(logits: np.ndarray, targets: np.ndarray) -> dict:
    """Computes metrics for multi-label classification.

    Args:
        logits: Array of shape (images, classes).
        targets: Array of shape (images, classes), 1 for an image's classes.

    Returns:
        Dictionary: `"images"`; `"mean_average_precision"`, over the classes
        with at least one image; `"chance"`, the value for random outputs;
        `"loss"`, the binary cross-entropy averaged over images and classes.
    """
    known = targets.sum(axis=0) > 0
    precisions = [
        average_precision(logits[:, i], targets[:, i])
        for i in np.flatnonzero(known)
    ]
    losses = np.logaddexp(0, logits) - targets * logits
    return {
        "images": len(targets),
        "mean_average_precision": float(np.mean(precisions)),
        "chance": float(targets.mean(axis=0)[known].mean()),
        "loss": float(losses.mean()),
    }


def average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Computes the area under the precision-recall step curve.

    Args:
        scores: Array of shape (images,).
        targets: Array of shape (images,), 1 for images of the class, at least
            one.

    Returns:
        Float. Images with equal scores form one step, as in scikit-learn.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(targets[order])
    last = np.append(np.diff(scores[order]) != 0, True)
    hits, places = hits[last], np.flatnonzero(last) + 1
    steps = np.diff(hits, prepend=0)
    return float((steps * hits / places).sum() / hits[-1])
