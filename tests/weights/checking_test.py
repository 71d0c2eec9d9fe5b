"""Tests inferring the architecture from shapes."""

import dataclasses

import pytest

from convmixer_tf.weights.checking import infer_architecture
from tests.weights.samples import SMALL
from tests.weights.samples import random_weights


@pytest.mark.parametrize(
    "changes",
    [{}, {"classes": None}, {"channels": 12, "depth": 11, "kernel_size": 1}],
)
def test_round_trip(changes):
    architecture = dataclasses.replace(SMALL, **changes)
    assert infer_architecture(random_weights(architecture)) == architecture


@pytest.mark.parametrize(
    "path",
    [
        "patch_embed/conv/kernel",
        "patch_embed/norm/beta",
        "block_0/depthwise/kernel",
        "block_1/pointwise_norm/gamma",
        "predictions/kernel",
    ],
)
def test_incomplete(path):
    weights = random_weights()
    del weights[path]
    with pytest.raises(ValueError, match=path):
        infer_architecture(weights)


def test_half_a_classifier():
    weights = random_weights()
    del weights["predictions/bias"]
    with pytest.raises(ValueError, match="Unexpected: predictions/kernel"):
        infer_architecture(weights)


def test_gap_between_blocks():
    weights = {
        path.replace("block_1", "block_2"): value
        for path, value in random_weights().items()
    }
    with pytest.raises(
        ValueError, match=r"Missing: block_1/.* Unexpected: block_2/"
    ):
        infer_architecture(weights)


def test_blocks_that_differ():
    wide = random_weights(dataclasses.replace(SMALL, dim=7))
    weights = random_weights()
    weights["block_1/pointwise/kernel"] = wide["block_1/pointwise/kernel"]
    with pytest.raises(
        ValueError, match=r"Wrong shape: block_1/pointwise/kernel \(expected"
    ):
        infer_architecture(weights)
