"""Tests names and layouts, from PyTorch to Keras and back."""

import numpy as np
import pytest

from convmixer_tf.weights.names import to_keras
from convmixer_tf.weights.names import to_timm
from tests.weights.samples import SMALL
from tests.weights.samples import assert_same
from tests.weights.samples import flat_names
from tests.weights.samples import random_state_dict
from tests.weights.samples import random_weights

KERAS_LAYERS = {
    "stem.0": "patch_embed/conv",
    "stem.2": "patch_embed/norm",
    "blocks.0.0.fn.0": "block_0/depthwise",
    "blocks.0.0.fn.2": "block_0/depthwise_norm",
    "blocks.0.1": "block_0/pointwise",
    "blocks.0.3": "block_0/pointwise_norm",
    "blocks.1.0.fn.0": "block_1/depthwise",
    "blocks.1.0.fn.2": "block_1/depthwise_norm",
    "blocks.1.1": "block_1/pointwise",
    "blocks.1.3": "block_1/pointwise_norm",
    "head": "predictions",
}


def names(module, layer):
    """Pairs the parameters of a module with the variables of a layer."""
    if "norm" in layer:
        pairs = {
            "weight": "gamma",
            "bias": "beta",
            "running_mean": "moving_mean",
            "running_var": "moving_variance",
        }
    else:
        pairs = {"weight": "kernel", "bias": "bias"}
    return {f"{module}.{p}": f"{layer}/{v}" for p, v in pairs.items()}


def test_all_names():
    expected = {}
    for module, layer in KERAS_LAYERS.items():
        expected.update(names(module, layer))
    state_dict = random_state_dict()
    tracked = {
        f"{module}.num_batches_tracked"
        for module, layer in KERAS_LAYERS.items()
        if "norm" in layer
    }
    assert set(state_dict) == set(expected) | tracked
    weights = to_keras(state_dict)
    assert set(weights) == set(expected.values())
    for torch_name, keras_name in expected.items():
        if not torch_name.endswith("weight") or "norm" in keras_name:
            np.testing.assert_array_equal(
                weights[keras_name], state_dict[torch_name]
            )


def test_layouts_element_by_element():
    weights = random_weights()
    state_dict = to_timm(weights)
    stem = weights["patch_embed/conv/kernel"]
    depthwise = weights["block_1/depthwise/kernel"]
    pointwise = weights["block_0/pointwise/kernel"]
    head = weights["predictions/kernel"]
    assert state_dict["stem.0.weight"].shape == (6, 3, 4, 4)
    assert state_dict["stem.0.weight"][5, 2, 1, 3] == stem[1, 3, 2, 5]
    assert state_dict["blocks.1.0.fn.0.weight"].shape == (6, 1, 3, 3)
    assert (
        state_dict["blocks.1.0.fn.0.weight"][5, 0, 1, 2]
        == depthwise[1, 2, 5, 0]
    )
    assert state_dict["blocks.0.1.weight"].shape == (6, 6, 1, 1)
    assert state_dict["blocks.0.1.weight"][5, 2, 0, 0] == pointwise[0, 0, 2, 5]
    assert state_dict["head.weight"].shape == (5, 6)
    assert state_dict["head.weight"][4, 2] == head[2, 4]


def test_round_trip_is_exact_and_contiguous():
    weights = random_weights()
    state_dict = to_timm(weights)
    assert all(array.flags.c_contiguous for array in state_dict.values())
    assert_same(to_keras(state_dict), weights)
    assert_same(to_timm(to_keras(state_dict)), state_dict)


def test_num_batches_tracked_is_an_int64_scalar():
    tracked = to_timm(random_weights())["stem.2.num_batches_tracked"]
    assert (tracked.dtype, tracked.shape) == (np.dtype("int64"), ())


def test_flat_names_of_the_authors():
    flat = {flat_names()[n]: v for n, v in random_state_dict().items()}
    assert_same(to_keras(flat), random_weights())


def test_prefix_on_some_names_only_is_unknown():
    state_dict = random_state_dict()
    state_dict["module.head.weight"] = state_dict.pop("head.weight")
    with pytest.raises(ValueError, match=r"module\.head\.weight"):
        to_keras(state_dict)


@pytest.mark.parametrize(
    "name",
    [
        "foo",
        "",
        "head",
        "head.gamma",
        "head.num_batches_tracked",
        "stem.0.running_mean",
        "stem.1.weight",
        "blocks.0.weight",
        "blocks.00.1.weight",
        "blocks.-1.1.weight",
        "blocks.99999.1.weight",
        "blocks.0.1.1.weight",
        "predictions/kernel",
    ],
)
def test_unknown_name(name):
    state_dict = {**random_state_dict(), name: np.zeros(3)}
    with pytest.raises(ValueError, match="no ConvMixer has: " + name):
        to_keras(state_dict)


@pytest.mark.parametrize("name", ["8.weight", "6.weight", "3.weight", "1.bias"])
def test_unknown_flat_name(name):
    state_dict = {flat_names()[n]: v for n, v in random_state_dict().items()}
    with pytest.raises(ValueError, match="no ConvMixer has: " + name):
        to_keras({**state_dict, name: np.zeros(3)})


def test_many_unknown_names_are_counted():
    state_dict = {f"layer.{i}": np.zeros(3) for i in range(100)}
    with pytest.raises(
        ValueError, match=r"layer\.0, .*layer\.4 and 95 more\.$"
    ):
        to_keras(state_dict)


def test_wrong_rank():
    state_dict = {**random_state_dict(), "head.weight": np.zeros((5, 6, 1, 1))}
    with pytest.raises(
        ValueError, match=r"`head.weight` must have 2 axes.*\(5, 6, 1, 1\)"
    ):
        to_keras(state_dict)


def test_unknown_keras_path():
    with pytest.raises(ValueError, match="`block_0/depthwise/gamma`"):
        to_timm({"block_0/depthwise/gamma": np.zeros(3)})


def test_depth_of_more_than_ten():
    deep = SMALL.__class__(2, 11, 3, 2, 3, None)
    weights = random_weights(deep)
    assert_same(to_keras(to_timm(weights)), weights)
