"""Tests the conversion of files between Keras and timm."""

import dataclasses
import os

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file
from safetensors.numpy import save_file

from convmixer_tf.models.conversion import convert_weights
from convmixer_tf.weights import timm_state_dict
from tests.helpers import call_script
from tests.weights.samples import SMALL
from tests.weights.samples import assert_same
from tests.weights.samples import flat_names
from tests.weights.samples import model_weights
from tests.weights.samples import quantized
from tests.weights.samples import random_state_dict
from tests.weights.samples import random_weights
from tests.weights.samples import small_model


@pytest.fixture
def timm_file(tmp_path):
    path = tmp_path / "timm.safetensors"
    save_file(random_state_dict(), path, metadata={"format": "pt"})
    return path


def test_timm_to_keras_and_back(timm_file, tmp_path):
    h5, back = tmp_path / "small.weights.h5", tmp_path / "back.safetensors"
    assert convert_weights(timm_file, h5) == SMALL
    model = small_model()
    model.load_weights(h5)
    assert_same(model_weights(model), random_weights())
    assert convert_weights(str(h5), str(back)) == SMALL
    assert_same(load_file(back), load_file(timm_file))
    assert back.read_bytes() == timm_file.read_bytes()


def test_keras_to_timm_and_back(tmp_path):
    model = small_model(activation="relu", mean=0.5)
    model.save(tmp_path / "small.keras")
    timm_file = tmp_path / "small.safetensors"
    convert_weights(tmp_path / "small.keras", timm_file)
    for source in (timm_file, tmp_path / "small.keras"):
        h5 = tmp_path / "small.weights.h5"
        convert_weights(source, h5, overwrite=True)
        again = small_model()
        again.load_weights(h5)
        assert_same(model_weights(again), model_weights(model))


@pytest.mark.parametrize(
    "options",
    [
        {"include_preprocessing": False},
        {"dropout": 0.1, "drop_path": 0.1},
        {"classifier_activation": None},
        {"activation": "relu", "remat": True},
    ],
)
def test_keras_loads_it_whatever_the_other_options(
    timm_file, tmp_path, options
):
    convert_weights(timm_file, tmp_path / "small.weights.h5")
    model = small_model(**options)
    model.load_weights(tmp_path / "small.weights.h5")
    assert_same(model_weights(model), random_weights())


@pytest.mark.parametrize("changes", [{"channels": 1}, {"classes": None}])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_other_architectures(tmp_path, changes, data_format):
    keras.config.set_image_data_format(data_format)
    architecture = dataclasses.replace(SMALL, **changes)
    source, back = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file(random_state_dict(architecture), source)
    assert convert_weights(source, tmp_path / "a.weights.h5") == architecture
    convert_weights(tmp_path / "a.weights.h5", back)
    assert_same(load_file(back), load_file(source))


def test_dtype_policy_does_not_matter(timm_file, tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    convert_weights(timm_file, tmp_path / "small.weights.h5")
    assert keras.config.dtype_policy().name == "bfloat16"
    convert_weights(
        tmp_path / "small.weights.h5", tmp_path / "back.safetensors"
    )
    back = tmp_path / "back.safetensors"
    assert back.read_bytes() == timm_file.read_bytes()


def test_names_of_the_authors_become_those_of_timm(tmp_path):
    flat = {flat_names()[n]: v for n, v in random_state_dict().items()}
    save_file(flat, tmp_path / "flat.safetensors")
    convert_weights(tmp_path / "flat.safetensors", tmp_path / "a.safetensors")
    assert_same(load_file(tmp_path / "a.safetensors"), random_state_dict())


@pytest.mark.parametrize("name", ["out.weights.h5", "out.safetensors"])
def test_incomplete_source_writes_nothing(tmp_path, name):
    state_dict = random_state_dict()
    del state_dict["blocks.1.3.weight"]
    source = tmp_path / "timm.safetensors"
    save_file(state_dict, source)
    with pytest.raises(
        ValueError,
        match=rf"Cannot convert `{source}`: .*block_1/pointwise_norm/gamma",
    ):
        convert_weights(source, tmp_path / name)
    assert os.listdir(tmp_path) == ["timm.safetensors"]


@pytest.mark.parametrize("name", ["out.weights.h5", "out.safetensors"])
def test_existing_destination_is_kept_unless_told(timm_file, tmp_path, name):
    destination = tmp_path / name
    destination.write_text("mine")
    with pytest.raises(FileExistsError, match="pass `--overwrite`"):
        convert_weights(timm_file, destination)
    assert destination.read_text() == "mine"
    convert_weights(timm_file, destination, overwrite=True)
    assert destination.stat().st_size > 1000
    assert sorted(os.listdir(tmp_path)) == sorted([name, timm_file.name])


@pytest.mark.parametrize("name", ["out.pth", "out.h5", "out.keras", "out"])
def test_other_destination(timm_file, tmp_path, name):
    with pytest.raises(
        ValueError, match=r"must end in \.weights\.h5 or \.safetensors"
    ):
        convert_weights(timm_file, tmp_path / name)


def test_no_such_source(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors"):
        convert_weights(
            tmp_path / "absent.safetensors", tmp_path / "out.weights.h5"
        )


def test_no_such_destination_directory(timm_file, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        convert_weights(timm_file, tmp_path / "absent" / "out.weights.h5")


def test_script(timm_file, tmp_path):
    destination = tmp_path / "small.weights.h5"
    arguments = ("--source", timm_file, "--destination", destination)
    result = call_script("export/convert_weights.py", *arguments)
    assert result.returncode == 0, result.stderr
    assert "dim=6, depth=2, kernel_size=3, patch_size=4" in result.stderr
    model = small_model()
    model.load_weights(destination)
    assert_same(model_weights(model), random_weights())


@pytest.mark.parametrize("name", ["out.weights.h5", "out.safetensors"])
@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_quantized_source(tmp_path, name, mode):
    model = quantized(small_model(), mode)
    model.save(tmp_path / "model.keras")
    convert_weights(tmp_path / "model.keras", tmp_path / name)
    converted = small_model(weights=tmp_path / name)
    assert_same(timm_state_dict(converted), timm_state_dict(model))


def test_source_with_more_than_a_convmixer(tmp_path):
    """Both are found, and the warning about other entries appears once."""
    content = {f"a.{name}": x for name, x in random_state_dict().items()}
    other = random_state_dict(seed=1)
    content |= {f"b.{name}": x for name, x in other.items()}
    source, destination = tmp_path / "two.pt", tmp_path / "one.weights.h5"
    save_file(content, source)
    with pytest.raises(ValueError, match="2 ConvMixers: `a`, `b`"):
        convert_weights(source, destination)
    assert not destination.exists()
    with pytest.warns(UserWarning, match="were not read: a") as said:
        convert_weights(source, destination, key="b")
    assert sum("were not read" in str(x.message) for x in said) == 1
    model = small_model(weights=destination)
    assert_same(timm_state_dict(model), other)


def test_values_are_not_touched_by_conversion(timm_file, tmp_path):
    state_dict = random_state_dict()
    tiny = np.float32(1e-42)  # Subnormal.
    state_dict["head.bias"][:2] = [tiny, -0.0]
    save_file(state_dict, timm_file)
    convert_weights(timm_file, tmp_path / "a.weights.h5")
    convert_weights(tmp_path / "a.weights.h5", tmp_path / "b.safetensors")
    back = load_file(tmp_path / "b.safetensors")["head.bias"]
    assert back.tobytes() == state_dict["head.bias"].tobytes()
