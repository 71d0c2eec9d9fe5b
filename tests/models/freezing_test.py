"""Tests frozen batch normalization."""

import keras
import numpy as np
import pytest

from convmixer_tf.models import ConvMixer
from convmixer_tf.models import freeze_batch_norm
from convmixer_tf.models import load_model
from tests.helpers import asymmetric_image
from tests.helpers import randomize

IMAGES = np.float32(asymmetric_image(8, 8, batch=4))
KINDS = ("gamma", "beta", "moving_mean", "moving_variance")


def build(**arguments):
    return randomize(
        ConvMixer(8, 2, 3, 4, input_shape=(8, 8, 3), classes=3, **arguments)
    )


def of_norms(weights):
    return [w for w in weights if w.path.rsplit("/", 1)[1] in KINDS[:2]]


def train(model):
    model.compile("sgd", "sparse_categorical_crossentropy")
    labels = np.arange(len(IMAGES)) % model.output_shape[-1]
    model.fit(IMAGES, labels, batch_size=4, epochs=2, verbose=0)


def norms_and_others(model):
    parts = [], []
    for weight in model.weights:
        kind = weight.path.rsplit("/", 1)[1]
        parts[kind not in KINDS].append(weight.numpy())
    return parts


def check_frozen(model, count=5):
    """Checks that training changes all weights except normalizations."""
    assert of_norms(model.trainable_weights) == []
    assert len(of_norms(model.non_trainable_weights)) == 2 * count
    before, others = norms_and_others(model)
    train(model)
    after, moved = norms_and_others(model)
    assert len(before) == 4 * count
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    assert all(map(np.any, map(np.not_equal, others, moved)))


def test_the_loop_over_the_layers_finds_none():
    model = build()
    kind = keras.layers.BatchNormalization
    assert not any(isinstance(layer, kind) for layer in model.layers)
    assert freeze_batch_norm(model) == 5


@pytest.mark.parametrize("remat", [False, True])
def test_it_stays_in_training(remat):
    model = build(remat=remat)
    assert freeze_batch_norm(model) == 5
    check_frozen(model)


def reloaded(model, path):
    model.save(path / "model.keras")
    return load_model(path / "model.keras")


def cloned(model, path):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


@pytest.mark.parametrize("copy", [reloaded, cloned])
def test_files_and_copies_keep_it(tmp_path, copy):
    model = build()
    freeze_batch_norm(model)
    found = copy(model, tmp_path)
    np.testing.assert_array_equal(found(IMAGES), model(IMAGES))
    check_frozen(found)


@pytest.mark.parametrize("copy", [reloaded, cloned])
def test_models_in_models(tmp_path, copy):
    body = build(include_top=False)
    model = keras.Sequential(
        [
            body,
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, "softmax"),
        ]
    )
    assert freeze_batch_norm(model) == 6
    check_frozen(copy(model, tmp_path), 6)


def test_what_else_is_frozen_is_kept(tmp_path):
    model = build()
    model.get_layer("block_0").trainable = False
    model.get_layer("block_1").pointwise.trainable = False
    found = reloaded(model, tmp_path)
    paths = {weight.path for weight in model.trainable_weights}
    assert {weight.path for weight in found.trainable_weights} == paths
    assert not any("block_0" in path for path in paths)
    assert "block_1/pointwise/kernel" not in paths
    assert "block_1/pointwise_norm/gamma" in paths


def test_it_can_be_undone(tmp_path):
    model = build()
    freeze_batch_norm(model)
    model.trainable = False
    model.trainable = True
    assert len(of_norms(model.trainable_weights)) == 10
    again = reloaded(model, tmp_path)
    assert len(of_norms(again.trainable_weights)) == 10


@pytest.mark.parametrize(
    "model",
    [
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]),
        keras.Sequential([keras.layers.BatchNormalization()]),
    ],
)
def test_what_has_none(model):
    with pytest.raises(ValueError, match="a built model with batch normaliz"):
        freeze_batch_norm(model)
