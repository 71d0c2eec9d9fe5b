"""The rewritten model computes what the model computes."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from convmixer_tf.export import deploy
from convmixer_tf.export.split_rule import TARGETS
from convmixer_tf.models import ConvMixer
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import relative_difference


def build(kernel_size=7, **arguments):
    arguments = {
        "input_shape": (45, 31, 3),
        "classes": 5,
        "classifier_activation": None,
        **arguments,
    }
    return randomize(ConvMixer(16, 2, kernel_size, 4, **arguments))


def difference(model, deployed, images=None):
    if images is None:
        images = asymmetric_image(45, 31, model.input_shape[-1])
    return relative_difference(deployed(images), model(images))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kernel_size", [1, 2, 5, 6, 7, 8, 9, 12])
def test_logits_are_the_models(kernel_size, target):
    model = build(kernel_size)
    assert difference(model, deploy(model, target)) < 1e-5


def test_the_description_is_json():
    deployed = deploy(build(), "litert")
    description = dataclasses.asdict(deployed.deployment)
    assert json.loads(json.dumps(description))["target"] == "litert"
    assert len(deployed.deployment.blocks) == 2


def test_unknown_targets():
    with pytest.raises(ValueError, match="`target` must be one of"):
        deploy(build(), "phone")


@pytest.mark.parametrize("wrong", ["sequential", "nested"])
def test_other_models_are_refused(wrong):
    image = keras.Input((45, 31, 3))
    if wrong == "sequential":
        model = keras.Sequential([keras.layers.Dense(3)])
    else:
        model = keras.Model(image, build()(image))
    with pytest.raises(ValueError, match=r"must be what `ConvMixer\(...\)`"):
        deploy(model)


def test_weights_that_are_not_finite():
    model = build()
    model.get_layer("block_1").depthwise.bias.assign(np.full(16, np.nan))
    with pytest.raises(ValueError, match=r"infinity in .*depthwise/bias"):
        deploy(model)
