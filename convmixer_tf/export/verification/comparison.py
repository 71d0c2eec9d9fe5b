"""Comparing what two classifiers say about the same images."""

import numpy as np

from convmixer_tf.models.probabilities import probabilities
from convmixer_tf.models.probabilities import settle_activation


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


def compare_classifiers(actual, expected, labels, activation="unknown"):
    """Compares the outputs of an artefact with those of its model.

    Args:
        actual: The artefact's outputs, of shape (images, outputs).
        expected: The model's.
        labels: Integer array of shape (images,), the right class of each
            image, or -1 where that is not known.
        activation: What the model ends in, as for `probabilities`. One that
            is not known is settled by `expected`.

    Returns:
        Dictionary: `"differences"` of the probabilities and, of logits, of
        these; `"agreement"`; `"classes_seen"`, how many classes the model
        gives to any image; and `"accuracy"` of both on the images that have a
        label, or `None`.

    Raises:
        ValueError: If the activation can't be settled, or as `probabilities`.
    """
    activation = settle_activation(activation, expected)
    ours = probabilities(expected, activation)
    theirs = probabilities(actual, activation)
    logits = None
    if activation == "linear":
        logits = difference(actual, expected)
    best, other = ours.argmax(axis=-1), theirs.argmax(axis=-1)
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
