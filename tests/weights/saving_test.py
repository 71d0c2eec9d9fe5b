"""Writing a model for timm."""

import json
import os

import keras
import pytest
from safetensors.numpy import load_file

from convmixer_tf.weights import save_timm_weights
from convmixer_tf.weights import timm_state_dict
from tests.weights.samples import assert_same
from tests.weights.samples import assign
from tests.weights.samples import model_weights
from tests.weights.samples import random_state_dict
from tests.weights.samples import random_weights
from tests.weights.samples import small_model


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
    with pytest.raises(FileNotFoundError, match=rf"no directory `{directory}`"):
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
