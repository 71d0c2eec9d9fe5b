"""Compares the linear classifier with scikit-learn's."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from convmixer_tf.training.probe import DEFAULT_PENALTY
from convmixer_tf.training.probe import FOLDS
from convmixer_tf.training.probe import PENALTIES
from convmixer_tf.training.probe import assign_folds
from convmixer_tf.training.probe import fit_probe
from convmixer_tf.training.probe import minimize


@pytest.fixture(scope="module")
def blobs():
    """Features of three overlapping classes with unequal scales."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), (40, 30, 20))
    centers = rng.normal(0, 1, (3, 8))
    features = centers[labels] + rng.normal(0, 1.2, (90, 8))
    return 5 + 3 * features, np.eye(3)[labels]


def test_it_is_logistic_regression(blobs):
    features, targets = blobs
    probe = fit_probe(features[:, None], targets, np.ones((90, 1)))
    scale = np.sqrt(np.mean((features - features.mean(0)) ** 2))
    reference = LogisticRegression(
        C=1 / (probe.penalty * 90), max_iter=5000, tol=1e-8
    ).fit((features - features.mean(0)) / scale, targets.argmax(1))
    expected = reference.decision_function(
        (features - features.mean(0)) / scale
    )
    logits = features @ probe.kernel + probe.bias
    logits -= logits.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(logits, expected, atol=5e-3)


def test_several_labels_are_a_regression_each(blobs):
    features, targets = blobs
    targets = np.stack([targets[:, 0], targets[:, 0] + targets[:, 1]], 1)
    targets[:3] = 0
    probe = fit_probe(
        features[:, None], targets, np.ones((90, 2)), multi_label=True
    )
    centered = features - features.mean(0)
    scale = np.sqrt(np.mean(centered**2))
    for i in range(2):
        reference = LogisticRegression(
            C=1 / (probe.penalty * 90), max_iter=5000, tol=1e-8
        ).fit(centered / scale, targets[:, i])
        np.testing.assert_allclose(
            features @ probe.kernel[:, i] + probe.bias[i],
            reference.decision_function(centered / scale),
            atol=5e-3,
        )


def test_cross_validation_chooses_by_what_the_features_tell():
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    noise = rng.normal(size=(80, 1, 60))
    telling = noise + 6 * labels[:, None, None]
    targets, weights = np.eye(2)[labels], np.ones((80, 1))
    assert fit_probe(noise, targets, weights).penalty >= 1
    assert fit_probe(telling, targets, weights).penalty < 0.1


def test_views_of_an_image_stay_in_one_fold():
    """Otherwise, copies of noise would predict each other."""
    rng = np.random.default_rng(0)
    noise = np.repeat(rng.normal(size=(60, 1, 80)), 2, axis=1)
    targets = np.eye(2)[np.arange(60) % 2]
    probe = fit_probe(noise, targets, np.ones((60, 1)))
    assert min(probe.losses.values()) > 0.6
    assert set(probe.losses) == set(PENALTIES)


def test_a_class_of_one_image_leaves_nothing_to_choose_by():
    features = np.random.default_rng(0).normal(size=(5, 1, 4))
    targets = np.eye(2)[[0, 0, 0, 0, 1]]
    probe = fit_probe(features, targets, np.ones((5, 1)))
    assert probe.losses == {}
    assert probe.penalty == DEFAULT_PENALTY
    assert np.isfinite(probe.kernel).all()


def test_weights_count_as_copies(blobs):
    features, targets = blobs
    twice = targets[:, 2] > 0
    weights = np.where(twice, 2.0, 1.0)[:, None]
    copies = np.concatenate([np.arange(90), np.flatnonzero(twice)])

    def bias(features, targets, weights):
        probe = fit_probe(features[:, None], targets, weights)
        logits = features[:90] @ probe.kernel + probe.bias
        return np.eye(3)[logits.argmax(1)].sum(0)

    plain = bias(features, targets, np.ones((90, 1)))
    weighted = bias(features, targets, weights)
    assert weighted[2] > plain[2]
    copied = bias(features[copies], targets[copies], np.ones((len(copies), 1)))
    assert abs(weighted - copied).max() <= 2


def test_folds_have_like_shares_of_each_class():
    targets = np.eye(3)[np.repeat(np.arange(3), (50, 10, 5))]
    folds = assign_folds(targets, seed=0)
    for fold in range(FOLDS):
        assert targets[folds == fold].sum(0).tolist() == [10, 2, 1]
    assert (folds != assign_folds(targets, seed=1)).any()


def test_the_minimum_of_a_narrow_valley_is_found():
    scales = 10.0 ** np.arange(5)
    target = np.arange(5.0)

    def objective(x):
        return 0.5 * scales @ (x - target) ** 2, scales * (x - target)

    found = minimize(objective, np.zeros(5))
    np.testing.assert_allclose(found, target, atol=1e-5)
