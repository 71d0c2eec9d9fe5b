"""Tests that recomputation changes only the memory."""

import keras
import numpy as np
import pytest
from keras import ops

from convmixer_tf.models import ConvMixer
from tests.helpers import asymmetric_image

tf = pytest.importorskip("tensorflow")


def _step(remat, images, graph, policy, frozen=None, **arguments):
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(1)
    model = ConvMixer(
        *(8, 2, 3, 4),
        input_shape=(None, None, 3),
        classes=5,
        remat=remat,
        **arguments,
    )
    if frozen:
        getattr(model.get_layer("block_0"), frozen).trainable = False

    def step(images):
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(model(images, training=True)))
        return loss, tape.gradient(loss, model.trainable_variables)

    loss, gradients = (tf.function(step) if graph else step)(images)
    statistics = [weight.numpy() for weight in model.non_trainable_weights]
    return loss, gradients, statistics


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("graph", [False, True])
def test_same_loss_gradients_and_running_statistics(graph, policy):
    images = tf.constant(asymmetric_image(), tf.float32)
    plain = _step(False, images, graph, policy)
    remat = _step(True, images, graph, policy)
    tolerance = 1e-5 if policy == "float32" else 2e-2
    for actual, expected in zip(
        tf.nest.flatten(remat), tf.nest.flatten(plain), strict=True
    ):
        scale = max(np.abs(expected).max(), 1e-3)
        np.testing.assert_allclose(actual, expected, atol=tolerance * scale)


@pytest.mark.parametrize(
    "arguments",
    [
        {"drop_path": 0.5},
        {"frozen": "depthwise_norm"},
        {"frozen": "pointwise_norm"},
    ],
)
def test_same_with_dropped_branches_and_frozen_layers(arguments):
    images = np.random.default_rng(0).uniform(0, 255, (8, 20, 24, 3))
    images = tf.constant(images, tf.float32)
    plain, remat = (
        tf.nest.flatten(_step(remat, images, True, "float32", **arguments))
        for remat in (False, True)
    )
    for actual, expected in zip(remat, plain, strict=True):
        scale = max(np.abs(expected).max(), 1e-3)
        np.testing.assert_allclose(actual, expected, atol=1e-5 * scale)


def test_frozen_blocks_use_their_running_statistics():
    images = asymmetric_image()
    model = ConvMixer(8, 1, 3, 4, input_shape=(45, 31, 3), remat=True)
    model.trainable = False
    np.testing.assert_allclose(
        model(images, training=True), model(images, training=False), rtol=1e-5
    )
