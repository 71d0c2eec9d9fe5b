"""Tests writing weights for timm."""

import json
import os

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

from convmixer_tf.weights import save_timm_weights
from convmixer_tf.weights import timm_state_dict
from tests.weights.samples import QUANTIZATIONS
from tests.weights.samples import assert_same
from tests.weights.samples import assign
from tests.weights.samples import model_weights
from tests.weights.samples import quantized
from tests.weights.samples import random_state_dict
from tests.weights.samples import random_weights
from tests.weights.samples import small_model
from tests.weights.samples import with_lora


@pytest.fixture(scope="module")
def model():
    model = small_model()
    assign(model, random_weights())
    return model


def test_state_dict(model):
    assert_same(timm_state_dict(model), random_state_dict())


def test_file_round_trip(model, tmp_path):
    path = tmp_path / "small.safetensors"
    save_timm_weights(model, path)
    assert_same(load_file(path), random_state_dict())
    again = small_model(weights=path)
    assert_same(model_weights(again), random_weights())


def test_metadata_says_pytorch(model, tmp_path):
    path = tmp_path / "small.safetensors"
    save_timm_weights(model, path)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    assert header["__metadata__"] == {"format": "pt"}
    assert header["head.weight"]["dtype"] == "F32"
    assert header["stem.2.num_batches_tracked"]["dtype"] == "I64"
    assert header["stem.2.num_batches_tracked"]["shape"] == []


def test_bfloat16(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    model = small_model()
    keras.config.set_dtype_policy("float32")
    path = tmp_path / "small.safetensors"
    save_timm_weights(model, path)
    again = small_model(weights=path)
    expected = {p: v.astype("float32") for p, v in model_weights(model).items()}
    assert_same(model_weights(again), expected)


def test_model_without_top_has_no_head(tmp_path):
    state_dict = timm_state_dict(small_model(include_top=False))
    assert set(random_state_dict()) - set(state_dict) == {
        "head.weight",
        "head.bias",
    }


def test_existing_file_is_kept_unless_told(model, tmp_path):
    path = tmp_path / "small.safetensors"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=rf"`{path}`.*pass `--overwrite`"):
        save_timm_weights(model, path)
    assert path.read_text() == "mine"
    save_timm_weights(model, path, overwrite=True)
    assert_same(load_file(path), random_state_dict())
    assert os.listdir(tmp_path) == ["small.safetensors"]


def test_no_such_directory(model, tmp_path):
    directory = tmp_path / "absent"
    with pytest.raises(
        FileNotFoundError, match=rf"directory `{directory}` does not"
    ):
        save_timm_weights(model, directory / "small.safetensors")
    assert not directory.exists()


def test_relative_path(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_timm_weights(model, "small.safetensors")
    assert os.listdir(tmp_path) == ["small.safetensors"]


def test_other_suffix(model, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        save_timm_weights(model, tmp_path / "small.pth")


def test_model_that_is_no_convmixer(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="Argument `model` must be"):
        save_timm_weights(model, tmp_path / "small.safetensors")
    assert not os.listdir(tmp_path)


def test_result_is_readable_by_others_as_any_new_file(model, tmp_path):
    path, plain = tmp_path / "small.safetensors", tmp_path / "plain"
    plain.touch()
    save_timm_weights(model, path)
    assert path.stat().st_mode == plain.stat().st_mode


def predictions(model):
    """Returns a model's outputs for two random images."""
    images = np.random.default_rng(0).uniform(0, 255, (2, 16, 12, 3))
    return np.asarray(model(images.astype("float32")))


# The difference is the rounding of features to 8 bits, per image.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "lora"),
    [
        *((mode, False) for mode in QUANTIZATIONS),
        *((mode, True) for mode in QUANTIZATIONS if mode != "float8"),
    ],
)
def test_quantized_model(tmp_path, mode, lora):
    model = small_model(classifier_activation=None)
    float_model = predictions(model)
    quantized(model, mode)
    if lora:
        with_lora(model, model.get_layer("predictions"))
    path = tmp_path / "small.safetensors"
    save_timm_weights(model, path)
    again = small_model(weights=path, classifier_activation=None)
    expected = predictions(model)
    tolerance = 0.02 * np.abs(expected).max()
    if mode == "float8":
        tolerance *= 3  # For a mantissa of three bits.
    np.testing.assert_allclose(predictions(again), expected, atol=tolerance)
    # An update is much larger.
    if lora:
        assert np.abs(float_model - expected).max() > 5 * tolerance


def test_model_with_lora(tmp_path):
    model = small_model(classifier_activation=None)
    before = predictions(model)
    layers = [model.get_layer("patch_embed").conv]
    layers += [model.get_layer(f"block_{i}").pointwise for i in range(2)]
    with_lora(model, *layers, model.get_layer("predictions"))
    path = tmp_path / "small.safetensors"
    save_timm_weights(model, path)
    again = small_model(weights=path, classifier_activation=None)
    np.testing.assert_allclose(
        predictions(again), predictions(model), rtol=1e-4, atol=1e-4
    )
    assert np.abs(before - predictions(model)).max() > 0.01


class Listed(keras.layers.Layer):
    """A layer with its sublayers in a list."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = list(parts)

    def call(self, x):
        return self.parts[0](x)


def test_quantized_model_in_a_list():
    model = quantized(small_model(), "int8")
    image = keras.Input((8, 8, 3))
    outer = keras.Model(image, Listed(model)(image))
    assert_same(timm_state_dict(outer), timm_state_dict(model))


def test_quantized_model_within_another_scope():
    model = quantized(small_model(), "int8")
    outer = keras.Sequential([keras.Input((8, 8, 3)), model])
    assert_same(timm_state_dict(outer), timm_state_dict(model))
