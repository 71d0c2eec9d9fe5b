"""Tests that all published variants exist with exact numbers."""

import functools
import inspect

import keras
import numpy as np
import pytest

import convmixer_tf
from convmixer_tf import models
from convmixer_tf.models import variants
from convmixer_tf.models.normalization import statistics_in
from convmixer_tf.preprocessing import CIFAR10_MEAN
from convmixer_tf.preprocessing import CIFAR10_STD
from convmixer_tf.preprocessing import IMAGENET_MEAN
from convmixer_tf.preprocessing import IMAGENET_STD

# Source: computed from the layer shapes; timm's table and keras-cv's
# `count_params` give the same.
VARIANTS = {
    "ConvMixer1536_20": {
        "patch": 7,
        "kernel": 9,
        "activation": "gelu",
        "grid": 32,
        "trainable": 51_625_960,
        "all": 51_751_912,
        "no_top": 50_088_960,
    },
    "ConvMixer768_32": {
        "patch": 7,
        "kernel": 7,
        "activation": "relu",
        "grid": 32,
        "trainable": 21_110_248,
        "all": 21_210_088,
        "no_top": 20_341_248,
    },
    "ConvMixer1024_20": {
        "patch": 14,
        "kernel": 9,
        "activation": "gelu",
        "grid": 16,
        "trainable": 24_383_464,
        "all": 24_467_432,
        "no_top": 23_358_464,
    },
    "ConvMixer512_16": {
        "patch": 7,
        "kernel": 8,
        "activation": "gelu",
        "grid": 32,
        "trainable": 5_357_544,
        "all": 5_391_336,
        "no_top": 4_844_544,
    },
    "ConvMixer256_8": {
        "patch": 2,
        "kernel": 5,
        "activation": "gelu",
        "grid": 16,
        "trainable": 594_186,
        "all": 602_890,
        "no_top": 591_616,
        "classes": 10,
        "dataset": "cifar10",
    },
}


@pytest.fixture(autouse=True)
def _zeros(monkeypatch):
    """Avoids random weights, which take seconds and are not used."""

    def zeros(self, shape, dtype=None):
        return keras.ops.zeros(shape, dtype)

    monkeypatch.setattr(keras.initializers.RandomUniform, "__call__", zeros)


def test_no_public_variant_is_missing():
    public = {name for name in models.__all__ if name[-1].isdigit()}
    assert public == set(VARIANTS)
    assert public < set(convmixer_tf.__all__)
    assert {f"ConvMixer{name}" for name in variants.VARIANTS} == public


@pytest.mark.parametrize(("name", "facts"), VARIANTS.items())
def test_architecture(name, facts):
    build = getattr(models, name)
    dim, depth = map(int, name.removeprefix("ConvMixer").split("_"))
    model = build(weights=None)
    assert model.name == f"convmixer_{dim}_{depth}"
    classes = facts.get("classes", 1000)
    assert model.output_shape == (None, classes)
    assert model.count_params() == facts["all"]
    trainable = sum(np.prod(v.shape) for v in model.trainable_variables)
    assert trainable == facts["trainable"]
    head = (dim + 1) * classes
    assert facts["no_top"] == facts["trainable"] - head
    blocks = [layer for layer in model.layers if "block" in layer.name]
    assert len(blocks) == depth
    assert {block.kernel_size for block in blocks} == {facts["kernel"]}
    stem = model.get_layer("patch_embed")
    assert (stem.dim, stem.patch_size) == (dim, facts["patch"])
    for layer in (stem, *blocks):
        assert layer.activation.__name__ == facts["activation"]
    grid = facts["grid"]
    assert blocks[-1].output.shape == (None, grid, grid, dim)


@pytest.mark.parametrize("name", VARIANTS)
def test_signature_is_that_of_keras_applications(name):
    parameters = inspect.signature(getattr(models, name)).parameters
    defaults = {
        key: p.default for key, p in parameters.items() if key != "kwargs"
    }
    assert defaults == {
        "include_top": True,
        "weights": VARIANTS[name].get("dataset", "imagenet"),
        "input_tensor": None,
        "input_shape": None,
        "pooling": None,
        "classes": VARIANTS[name].get("classes", 1000),
        "classifier_activation": "softmax",
        "name": name.replace("M", "m", 1).lower().replace("mixer", "mixer_"),
    }
    assert getattr(models, name).__name__ == name
    assert f"{name}(weights=None)" in getattr(models, name).__doc__


# One function builds all variants.
@pytest.mark.parametrize("name", ["ConvMixer256_8", "ConvMixer512_16"])
def test_what_keras_applications_are_tested_for(name):
    build = functools.partial(
        getattr(models, name), weights=None, include_top=False
    )
    dim = int(name.removeprefix("ConvMixer").split("_")[0])
    for channels in (1, 4):
        model = build(input_shape=(None, None, channels))
        assert model.output_shape == (None, None, None, dim)
    assert build(input_shape=(123, 231, 3)).output_shape[-1] == dim
    custom = keras.Input((200, 200, 4), name="custom_input")
    front = keras.layers.Conv2D(3, 2, strides=2)(custom)
    assert build(input_tensor=front).output_shape[-1] == dim
    assert build(pooling="max").output_shape == (None, dim)
    config = keras.saving.serialize_keras_object(build())
    restored = keras.saving.deserialize_keras_object(config)
    assert len(restored.weights) == len(build().weights)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("ConvMixer256_8", CIFAR10_MEAN, CIFAR10_STD),
        ("ConvMixer768_32", IMAGENET_MEAN, IMAGENET_STD),
        ("ConvMixer512_16", [0.0] * 3, [1.0] * 3),
    ],
)
def test_normalizes_as_its_weights_were_trained(name, mean, std):
    build = functools.partial(
        getattr(models, name), weights=None, include_top=False
    )

    def statistics(**kwargs):
        layer = build(**kwargs).get_layer("normalization")
        return statistics_in(layer.get_config())

    np.testing.assert_allclose(statistics(), [mean, std])
    gray = statistics(input_shape=(None, None, 1))
    np.testing.assert_allclose(gray, [[np.mean(mean)], [np.mean(std)]])
    own = statistics(mean=0.5, std=(0.1, 0.2, 0.3))
    np.testing.assert_allclose(own, [[0.5] * 3, [0.1, 0.2, 0.3]])
