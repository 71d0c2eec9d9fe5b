"""Tests the scores of each patch. Their mean is the logits."""

import keras
import numpy as np
import pytest
from keras import layers

from convmixer_tf.analysis import dense_classifier
from convmixer_tf.analysis import feature_extractor
from convmixer_tf.analysis import save_label_map
from tests.helpers import asymmetric_image
from tests.helpers import relative_difference


def test_the_mean_is_the_logits(build):
    model, images = build()
    scores = dense_classifier(model)(images)
    assert scores.shape == (2, 7, 5, 5)
    mean = np.mean(scores, (1, 2))
    assert relative_difference(mean, model(images)) < 1e-12


def test_channels_first(build):
    # In single precision: a CPU has no other channels_first convolutions. Five
    # classes on a grid of five columns, see `dense_classifier`.
    model, images = build("channels_first", "float32")
    scores = dense_classifier(model)(images)
    assert scores.shape == (2, 5, 7, 5)
    mean = np.mean(scores, (2, 3))
    assert relative_difference(mean, model(images)) < 1e-5


@pytest.mark.parametrize("size", [(4, 4), (45, 30)])
def test_any_size(build, size):
    model, _ = build(classifier_activation="softmax")
    dense = dense_classifier(model)
    images = asymmetric_image(*size)
    scores = dense(images)
    assert scores.shape == (2, size[0] // 4, size[1] // 4, 5)
    logits = np.mean(scores, (1, 2))
    # The same model, built for that size.
    other, _ = build(classifier_activation="softmax")
    other = keras.models.clone_model(
        other, input_tensors=keras.Input((*size, 3))
    )
    other.set_weights(model.get_weights())
    expected = np.log(other(images))
    expected -= expected.mean(-1, keepdims=True)
    logits -= logits.mean(-1, keepdims=True)
    assert relative_difference(logits, expected) < 1e-10


def test_a_copy_that_is_a_convmixer_itself(build):
    model, images = build()
    dense = dense_classifier(model)
    before = np.array(dense(images))
    for weight in model.weights:
        weight.assign(weight + 1)
    np.testing.assert_array_equal(dense(images), before)
    maps = feature_extractor(dense, [-1])(asymmetric_image(8, 12))
    assert maps["block_2"].shape == (2, 2, 3, 6)


def test_half_precision_ends_in_full(build):
    model, images = build(dtype="mixed_bfloat16")
    scores = dense_classifier(model)(images)
    assert scores.dtype == "float32"
    mean = np.mean(scores, (1, 2))
    assert relative_difference(mean, model(images)) < 1e-5


def test_a_classifier_without_bias():
    image = keras.Input((8, 6, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 2, 2)(image))
    model = keras.Model(image, layers.Dense(3, use_bias=False)(x))
    images = asymmetric_image(8, 6)
    mean = np.mean(dense_classifier(model)(images), (1, 2))
    assert relative_difference(mean, model(images)) < 1e-5


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_a_model_without_classifier_is_an_error(build, pooling):
    model, _ = build(include_top=False, pooling=pooling)
    with pytest.raises(ValueError, match="must end in global average pooling"):
        dense_classifier(model)


def test_two_inputs_are_an_error():
    images = [keras.Input((8, 6, 3)), keras.Input((8, 6, 3))]
    x = layers.GlobalAveragePooling2D()(layers.add(images))
    model = keras.Model(images, layers.Dense(3)(x))
    with pytest.raises(ValueError, match=r"one input, .*, with 2 inputs"):
        dense_classifier(model)


def test_picture(tmp_path, read_png):
    path = tmp_path / "labels.png"
    image = asymmetric_image(32, 32)[0]
    labels = np.arange(64).reshape(8, 8) // 16
    save_label_map(path, image, labels, ["a", "b", "c", "d"])
    pixels = read_png(path)
    # The right panel, between its upper and lower edge.
    column = pixels[: len(pixels) * 3 // 4, pixels.shape[1] * 3 // 4]
    changes = np.flatnonzero((column[1:] != column[:-1]).any(-1))
    edges, thickness = changes[:4], np.diff(changes[:4])
    assert len(np.unique(column[edges + 1], axis=0)) == 4
    np.testing.assert_allclose(thickness, thickness[0], atol=2)
    save_label_map(path, image, labels, overwrite=True)
    with pytest.raises(FileExistsError, match="pass `--overwrite`"):
        save_label_map(path, image, labels)
