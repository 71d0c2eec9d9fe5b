import sys

import numpy as np
import pytest

from convmixer_tf.data import Augmentation
from convmixer_tf.data import get_augmentation
from convmixer_tf.data import open_dataset
from convmixer_tf.data import train_batches
from convmixer_tf.data.light import KerasCV
from convmixer_tf.data.light import keras_cv_augment
from convmixer_tf.training.inputs import distribute


@pytest.mark.large
def test_augments_batches():
    pytest.importorskip("keras_cv", reason="needs keras-cv")
    dataset = open_dataset("digits", "train")
    plain = train_batches(dataset, Augmentation(), 32, 8, seed=0, epoch=0).take(
        2
    )
    augmented = plain.map(keras_cv_augment(seed=0))
    for (x, y), (new_x, new_y) in zip(plain, augmented, strict=True):
        assert new_x.shape == x.shape
        assert np.min(new_x) >= 0
        assert np.max(new_x) <= 255
        assert np.mean(np.abs(new_x - x)) > 1
        assert np.any(np.max(new_y, 1) < 1)
        np.testing.assert_allclose(np.sum(new_y, 1), np.sum(y, 1), atol=1e-6)


@pytest.mark.large
def test_the_recipe_feeds_several_replicas(two_replicas):
    pytest.importorskip("keras_cv", reason="needs keras-cv")
    dataset = open_dataset("digits", "train")
    batches = distribute(
        two_replicas,
        lambda context: train_batches(
            *(dataset, get_augmentation("keras_cv"), 32, 4),
            **{"seed": 0, "epoch": 0, "replicas": 2},
        ),
    )
    images, _ = next(iter(batches))
    parts = two_replicas.experimental_local_results(images)
    assert [part.shape for part in parts] == [(4, 32, 32, 3)] * 2


def test_names_the_missing_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(ImportError, match="pip install keras-cv"):
        keras_cv_augment(seed=0)
    with pytest.raises(ImportError, match="pip install keras-cv"):
        get_augmentation("keras_cv")


def test_wrong_settings_are_errors():
    with pytest.raises(ValueError, match="`magnitude` must be from 0 to 1"):
        KerasCV(magnitude=2)
