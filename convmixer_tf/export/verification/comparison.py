"""Comparing what two classifiers say about the same images."""

import numpy as np


def are_probabilities(outputs):
    """Whether outputs are probabilities: all lie in [0, 1]."""
    return bool(np.min(outputs) >= 0 and np.max(outputs) <= 1)


def probabilities(outputs):
    """Turns a classifier's outputs into probabilities.

    Args:
        outputs: Array of shape (images, classes): probabilities, or logits.

    Returns:
        float64 array of the same shape.
    """
    outputs = np.asarray(outputs, np.float64)
    if are_probabilities(outputs):
        return outputs
    shifted = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def difference(actual, expected):
    """Measures the distance between arrays.

    Args:
        actual: Array.
        expected: Array of the same shape.

    Returns:
        Dictionary: `"max"` and `"mean"` of the absolute difference, and
        `"max_relative"` and `"mean_relative"`, these over the largest
        expected magnitude.
    """
    expected = np.asarray(expected, np.float64)
    distance = np.abs(np.asarray(actual, np.float64) - expected)
    scale = max(float(np.abs(expected).max()), 1e-30)
    largest, mean = float(distance.max()), float(distance.mean())
    return {
        "max": largest,
        "mean": mean,
        "max_relative": largest / scale,
        "mean_relative": mean / scale,
    }


def compare_classifiers(actual, expected, labels):
    """Compares the outputs of an artefact with those of its model.

    Args:
        actual: The artefact's outputs, of shape (images, classes).
        expected: The model's.
        labels: Integer array of shape (images,), the right output of each
            image, or -1 where that is not known.

    Returns:
        Dictionary: `"differences"` of the probabilities and, if both give
        logits, of these; `"agreement"`; `"classes_seen"`, how many classes
        the model gives to any image; and `"accuracy"` of both on the images
        that have a label, or `None`.
    """
    ours, theirs = probabilities(expected), probabilities(actual)
    logits = None
    if not are_probabilities(expected) and not are_probabilities(actual):
        logits = difference(actual, expected)
    best, other = ours.argmax(axis=-1), np.argmax(actual, axis=-1)
    known = labels >= 0
    accuracy = None
    if known.any():
        accuracy = {
            name: float(np.mean(classes[known] == labels[known]))
            for name, classes in (("model", best), ("artefact", other))
        }
    return {
        "differences": {
            "probabilities": difference(theirs, ours),
            "logits": logits,
        },
        "agreement": float(np.mean(best == other)),
        "classes_seen": len(np.unique(best)),
        "accuracy": accuracy,
    }


def compare_features(actual, expected):
    """Compares features as `compare_classifiers` does predictions."""
    return {
        "differences": {"features": difference(actual, expected)},
        "agreement": None,
        "classes_seen": None,
        "accuracy": None,
    }
