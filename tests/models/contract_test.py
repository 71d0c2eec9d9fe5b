"""Tests that wrong arguments raise clear errors before building."""

import keras
import numpy as np
import pytest

from convmixer_tf import models
from convmixer_tf.models import ConvMixer1536_20

NAME = "ConvMixer1536_20"
ERRORS = {
    "unknown weights": (
        {"weights": "imagenet21k"},
        '`weights` must be None, "imagenet", "cifar10" or the path of an exist',
    ),
    "missing file": (
        {"weights": "no/such/file.weights.h5"},
        r"existing file. Received: weights='no/such/file.weights.h5'",
    ),
    "weights of a wrong type": ({"weights": 3}, "Received: weights=3"),
    "an array of weights": (
        {"weights": np.zeros(3)},
        r"path of an existing file. Received: weights=array\(\[0",
    ),
    "other classes": (
        {"classes": 10},
        r"has 1000 classes. Pass `reset_classifier=True` .*classes=10",
    ),
    "other channels": (
        {"input_shape": (224, 224, 4)},
        r"made for 3 channels. Pass `adapt_channels=True` .*: 4 channels",
    ),
    "one channel without top": (
        {"input_shape": (None, None, 1), "include_top": False},
        "made for 3 channels",
    ),
    "sigmoid on pretrained top": (
        {"classifier_activation": "sigmoid"},
        '`classifier_activation` must be None or "softmax"',
    ),
    "rank": (
        {"input_shape": (224, 224)},
        r"`input_shape` must be a tuple of three, \(height, width, channels\)",
    ),
    "batch in the shape": (
        {"input_shape": (1, 224, 224, 3)},
        "`input_shape` must be a tuple of three",
    ),
    "too small": (
        {"input_shape": (6, 224, 3)},
        "height and a width of at least one patch, 7, or None",
    ),
    "no channels": (
        {"input_shape": (224, 224, None)},
        "a positive number of channels",
    ),
    "zero channels": (
        {"input_shape": (224, 224, 0)},
        "a positive number of channels",
    ),
    "a number as shape": (
        {"input_shape": np.int64(224)},
        r"must be a tuple of three, .* Received: input_shape=\(224,\)",
    ),
    "size is no integer": (
        {"input_shape": (224.0, 224, 3)},
        "height and a width of at least one patch",
    ),
    "pooling": (
        {"include_top": False, "pooling": "mean"},
        '`pooling` must be None, "avg" or "max". Received: pooling=\'mean\'',
    ),
    "pooling with top": ({"pooling": "mean"}, "`pooling` must be None"),
    "classes": ({"classes": 0}, "`classes` must be a positive integer"),
    "dropout": ({"dropout": 1.0}, "`dropout` must be a number of at least 0"),
    "drop_path": ({"drop_path": -1}, "`drop_path` must be a number"),
    "array as input_tensor": (
        {"input_tensor": np.zeros((1, 224, 224, 3))},
        "`input_tensor` must be a symbolic Keras tensor",
    ),
    "two shapes": (
        {
            "input_tensor": keras.KerasTensor((None, 32, 32, 3)),
            "input_shape": (64, 64, 3),
        },
        "`input_shape` and `input_tensor` must agree",
    ),
    "input_tensor too small": (
        {"input_tensor": keras.KerasTensor((None, 5, 5, 3))},
        "at least one patch, 7",
    ),
    "mean": (
        {"mean": (0.5, 0.5)},
        "`mean` must be a number or one for each of the 3 channels",
    ),
    "mean with an axis too many": (
        {"mean": np.full((3, 1), 0.5)},
        "`mean` must be a number or one for each of the 3 channels",
    ),
    "boolean of NumPy's": (
        {"classes": np.True_},
        "`classes` must be a positive integer",
    ),
    "std": ({"std": 0}, "`std` must be positive"),
    "std of a wrong type": (
        {"std": "imagenet"},
        "`std` must be a number or one for each",
    ),
}


@pytest.fixture(autouse=True)
def _nothing_is_built_or_fetched(monkeypatch):
    def fail(*args, **kwargs):
        pytest.fail("Something was built or fetched before the check.")

    for name in (
        "PatchEmbed",
        "ConvMixerBlock",
        "fetch_weights",
        "image_input",
    ):
        monkeypatch.setattr(f"convmixer_tf.models.convmixer.{name}", fail)
    monkeypatch.setattr(keras, "Model", fail)


OF_THE_SMALL_ONE = {
    "other weights": (
        {"weights": "imagenet"},
        r'weights "imagenet" for .* only. Pass "cifar10", the path of a file',
    ),
    "other classes": (
        {"classes": 1000},
        'classifier of weights "cifar10" has 10 classes. Pass `reset_classif',
    ),
    "sigmoid on pretrained top": (
        {"classifier_activation": "sigmoid"},
        'None or "softmax" with the classifier of weights "cifar10"',
    ),
    "other channels": (
        {"input_shape": (32, 32, 1)},
        'Weights "cifar10" are made for 3 channels',
    ),
    "initializer": (
        {"depthwise_initializer": "zeros"},
        '`depthwise_initializer` must be None or "covariance". Received: dept',
    ),
    "too small": ({"input_shape": (1, 32, 3)}, "at least one patch, 2,"),
}


@pytest.mark.parametrize(
    ("arguments", "message"), OF_THE_SMALL_ONE.values(), ids=OF_THE_SMALL_ONE
)
def test_errors_of_the_small_variant(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.ConvMixer256_8(**arguments)


def test_weights_of_the_small_variant_fit_no_other():
    message = (
        r'weights "cifar10" for .*\(256, 8, 5, 2, \'gelu\'\) only. Pass "ima'
    )
    with pytest.raises(ValueError, match=message):
        ConvMixer1536_20(weights="cifar10")


@pytest.mark.parametrize(("arguments", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConvMixer1536_20(**arguments)


@pytest.mark.parametrize(
    "argument", ["dim", "depth", "kernel_size", "patch_size"]
)
@pytest.mark.parametrize("value", [0, -1, 1.5, None])
def test_errors_of_the_architecture(argument, value):
    sizes = {"dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 4}
    with pytest.raises(ValueError, match=f"`{argument}` must be a positive"):
        models.ConvMixer(**{**sizes, argument: value})


def test_a_side_is_no_shape():
    with pytest.raises(ValueError, match="must be a tuple of three"):
        ConvMixer1536_20(input_shape=224)


def test_unpublished_architecture_is_said_before_anything_else():
    with pytest.raises(
        ValueError, match='There are published weights "imagenet" for'
    ):
        models.ConvMixer(8, 1, 3, 4, weights="imagenet", classes=10)


def test_activation_is_known_before_anything_is_built():
    with pytest.raises(ValueError, match="activation"):
        models.ConvMixer(8, 1, 3, 4, activation="gelo")


def test_channels_first_is_checked_in_its_own_order():
    keras.config.set_image_data_format("channels_first")
    with pytest.raises(ValueError, match=r"\(channels, height, width\), must"):
        ConvMixer1536_20(weights=None, input_shape=(3, 224, 6))
