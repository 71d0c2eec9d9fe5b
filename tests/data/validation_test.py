"""Tests that augmentations reject invalid input with clear errors."""

import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.data import ColorJitter
from convmixer_tf.data import Mixing
from convmixer_tf.data import RandAugment
from convmixer_tf.data.color_jitter import color_jitter
from convmixer_tf.data.mixing import mix
from convmixer_tf.data.mixing import smooth_labels
from convmixer_tf.data.rand_augment import rand_augment

PIXELS = np.zeros((2, 8, 8, 3), "uint8")
LABELS = np.eye(2, dtype="float32")


def jitter(images):
    return color_jitter(images, [0, 0], ColorJitter())


def augment(images):
    return rand_augment(images, [0, 0], RandAugment())


@pytest.mark.parametrize("function", [jitter, augment])
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.float32(PIXELS), r"must be uint8 .*`tf.cast\(images, tf.uint8\)`"),
        (np.int64(PIXELS), "Received: images of type int64"),
        (PIXELS[..., :1], "must have 3 channels"),
        (np.zeros((2, 8, 8, 12), "uint8"), "must have 3 channels"),
        (np.zeros((2, 3, 8, 8), "uint8"), "must have 3 channels, last"),
        (PIXELS[0], r"must be a batch .*`images\[None\]`"),
    ],
)
def test_images_of_another_kind(function, images, message):
    with pytest.raises(ValueError, match=message):
        function(images)


@pytest.mark.slow
@pytest.mark.parametrize("function", [jitter, augment])
def test_channels_that_are_known_only_later(function):
    spec = tf.TensorSpec([None, 8, 8, None], tf.uint8)
    traced = tf.function(function).get_concrete_function(spec)
    assert traced(tf.constant(PIXELS)).shape == PIXELS.shape


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.int32(PIXELS), LABELS, "must be uint8 or float pixels"),
        (PIXELS[0], LABELS, "must be a batch of shape"),
        (PIXELS, np.array([0, 1]), "`smooth_labels` converts class indices"),
        (PIXELS, np.int64(LABELS), "must be floats of shape"),
        (PIXELS, LABELS[:1], "a row for each image"),
    ],
)
def test_what_cannot_be_mixed(images, labels, message):
    with pytest.raises(ValueError, match=message):
        mix(images, labels, [0, 0], Mixing())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((LABELS[0], 2), "must be class indices"),
        ((np.array([[0], [1]]), 2), "must be class indices"),
        ((np.array([0, 1]), 0), "`num_classes` must be a positive integer"),
        ((np.array([0, 1]), 2, 1.5), "`smoothing` must be from 0 to 1"),
    ],
)
def test_labels_that_cannot_be_smoothed(arguments, message):
    with pytest.raises(ValueError, match=message):
        smooth_labels(*arguments)
