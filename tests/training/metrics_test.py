"""Compares metrics with scikit-learn's and known values."""

import numpy as np
import pytest
from sklearn import metrics

from convmixer_tf.training.metrics import average_precision
from convmixer_tf.training.metrics import classification_metrics
from convmixer_tf.training.metrics import multi_label_metrics
from convmixer_tf.training.metrics import wilson_interval


def test_intervals_are_wilsons():
    # R: prop.test(k, n, correct = FALSE).
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(143, 150)[0] == pytest.approx(0.9068, abs=1e-4)
    assert wilson_interval(0, 5) == pytest.approx((0, 0.4345), abs=1e-4)
    assert wilson_interval(5, 5)[1] == pytest.approx(1)


def test_figures_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 60, p=(0.6, 0.2, 0.2, 0))  # The last has no images.
    logits = rng.normal(size=(60, 4)) + 2 * np.eye(4)[labels] - [0, 0, 0, 9]
    found = classification_metrics(logits, np.eye(4)[labels])
    answers = logits.argmax(1)
    assert found["images"] == 60
    assert found["top1"] == pytest.approx(np.mean(answers == labels))
    assert found["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(labels, answers)
    )
    assert found["chance"] == pytest.approx(np.mean(labels == 0))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found["loss"] == pytest.approx(
        metrics.log_loss(labels, probabilities, labels=range(4))
    )


@pytest.mark.parametrize("values", [3, 1000])
def test_average_precision_is_scikit_learns_also_of_equal_scores(values):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 50)
    scores = rng.integers(0, values, 50)
    assert average_precision(scores, targets) == pytest.approx(
        metrics.average_precision_score(targets, scores)
    )


def test_the_mean_average_precision_leaves_out_classes_without_images():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, (40, 3))
    targets[:, 1] = 0
    logits = rng.normal(size=(40, 3))
    expected = metrics.average_precision_score(
        targets[:, [0, 2]], logits[:, [0, 2]], average="macro"
    )
    found = multi_label_metrics(logits, targets)
    assert found["mean_average_precision"] == pytest.approx(expected)
    assert found["chance"] == pytest.approx(targets[:, [0, 2]].mean())
