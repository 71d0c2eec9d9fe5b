"""Reading .weights.h5 and .keras files, whole, damaged and hostile."""

import io
import pathlib
import zipfile

import h5py
import keras
import numpy as np
import pytest

from convmixer_tf.weights import read_weights
from tests.weights.samples import assert_same
from tests.weights.samples import assign
from tests.weights.samples import model_weights
from tests.weights.samples import random_weights
from tests.weights.samples import small_model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Both files of one model with random weights."""
    directory = tmp_path_factory.mktemp("files")
    model = small_model()
    assign(model, random_weights())
    model.save_weights(directory / "small.weights.h5")
    model.save(directory / "small.keras")
    return directory


@pytest.fixture
def h5(files, tmp_path):
    """A copy of the weights file, to be damaged."""
    path = tmp_path / "small.weights.h5"
    path.write_bytes((files / "small.weights.h5").read_bytes())
    return path


@pytest.mark.parametrize("name", ["small.weights.h5", "small.keras"])
def test_reads_every_weight(files, name):
    assert_same(read_weights(files / name), random_weights())


def test_reads_what_training_saved(tmp_path):
    model = small_model(dropout=0.1, drop_path=0.1)
    loss = "sparse_categorical_crossentropy"
    model.compile("adam", loss, metrics=["accuracy"])
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (4, 8, 8, 3)).astype("float32")
    model.fit(images, np.arange(4), verbose=0)
    model.save(tmp_path / "trained.keras")
    assert_same(read_weights(tmp_path / "trained.keras"), model_weights(model))


def test_bfloat16_variables(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    model = small_model()
    model.save_weights(tmp_path / "small.weights.h5")
    weights = read_weights(tmp_path / "small.weights.h5")
    assert weights["predictions/kernel"].dtype.name == "bfloat16"
    assert_same(weights, model_weights(model))


def test_model_without_top(tmp_path):
    model = small_model(include_top=False)
    model.save_weights(tmp_path / "small.weights.h5")
    weights = read_weights(tmp_path / "small.weights.h5")
    assert_same(weights, model_weights(model))
    assert "predictions/kernel" not in weights


def test_further_layers_are_named(tmp_path):
    inputs = keras.Input((8, 8, 1))
    colours = keras.layers.Conv2D(3, 1, name="colours")(inputs)
    model = small_model(input_tensor=colours, input_shape=None)
    model.save_weights(tmp_path / "small.weights.h5")
    with pytest.raises(
        ValueError, match=r"has: colours\. .*its own `load_weights`"
    ):
        read_weights(tmp_path / "small.weights.h5")


@pytest.mark.parametrize("name", ["small.weights.h5", "small.keras"])
def test_truncated_anywhere(files, tmp_path, name):
    content = (files / name).read_bytes()
    path = tmp_path / name
    for size in [1, 8, 100, 1000, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(
            ValueError, match=rf"`{path}`: it is not a .* or is truncated"
        ):
            read_weights(path)


@pytest.mark.parametrize("name", ["small.weights.h5", "small.keras"])
@pytest.mark.parametrize("content", [b"", b"not a file of Keras" * 99])
def test_other_content(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"`{path}`: it is (empty|not a)"):
        read_weights(path)


def test_any_flipped_byte_is_found_or_reads_as_weights(h5):
    content = h5.read_bytes()
    found = 0
    for offset in range(0, len(content), 499):
        damaged = bytearray(content)
        damaged[offset] ^= 0xFF
        h5.write_bytes(damaged)
        try:
            weights = read_weights(h5)
        except ValueError:  # Any other error would fail the test.
            found += 1
        else:
            assert set(weights) <= set(random_weights())
    assert found


def test_any_flipped_byte_of_the_weights_in_keras_is_found(files, tmp_path):
    path = tmp_path / "small.keras"
    content = (files / "small.keras").read_bytes()
    weights = (files / "small.weights.h5").read_bytes()
    start = content.index(b"\x89HDF")
    for offset in range(start, start + len(weights) - 1000, 5001):
        damaged = bytearray(content)
        damaged[offset] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"is not a \.keras file"):
            read_weights(path)


def test_any_flipped_byte_of_the_archive_is_found_or_harmless(files, tmp_path):
    path = tmp_path / "small.keras"
    content = (files / "small.keras").read_bytes()
    found = 0
    for offset in range(len(content) - 400, len(content), 2):
        damaged = bytearray(content)
        damaged[offset] ^= 8
        path.write_bytes(damaged)
        try:
            weights = read_weights(path)
        except ValueError:  # Any other error would fail the test.
            found += 1
        else:
            assert_same(weights, random_weights())
    assert found


def test_keras_file_without_weights(tmp_path):
    path = tmp_path / "small.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ValueError, match=r"is not a \.keras file"):
        read_weights(path)


def test_config_is_never_looked_at(files, tmp_path):
    path = tmp_path / "small.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "not even JSON")
        archive.write(files / "small.weights.h5", "model.weights.h5")
    assert_same(read_weights(path), random_weights())


def test_h5_of_another_program(tmp_path):
    path = tmp_path / "other.weights.h5"
    with h5py.File(path, "w") as file:
        file["model_weights/conv/kernel"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"was not written by Keras 3"):
        read_weights(path)


BIAS = "layers/dense/vars/1"


def test_layer_without_a_name(h5):
    with h5py.File(h5, "a") as file:
        del file["layers/dense/vars"].attrs["name"]
    with pytest.raises(ValueError, match="is not a Keras 3 weights file"):
        read_weights(h5)


def test_layer_with_a_variable_too_many(h5):
    with h5py.File(h5, "a") as file:
        file["layers/dense/vars/2"] = np.zeros(3)
    with pytest.raises(
        ValueError, match=r"`predictions` must have 2 .*Received: 3"
    ):
        read_weights(h5)


def test_two_layers_of_one_name(h5):
    with h5py.File(h5, "a") as file:
        file.copy("layers/dense", "layers/dense_1")
    with pytest.raises(ValueError, match="two layers `predictions`"):
        read_weights(h5)


def test_array_of_another_rank(h5):
    with h5py.File(h5, "a") as file:
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = np.zeros(30, "float32")
    with pytest.raises(
        ValueError, match=r"`predictions/kernel` must have 2 axes.*\(30,\)"
    ):
        read_weights(h5)


def replace_bias(path, make):
    """Replaces one dataset by what `make(group)` puts in its place."""
    with h5py.File(path, "a") as file:
        del file[BIAS]
        make(file)


def test_link_to_another_file(h5, files):
    def make(file):
        other = str(files / "small.weights.h5")
        file[BIAS] = h5py.ExternalLink(other, BIAS)

    replace_bias(h5, make)
    with pytest.raises(ValueError, match="links to another place"):
        read_weights(h5)


def test_data_in_another_file(h5, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(np.arange(5, dtype="float32").tobytes())

    def make(file):
        file.create_dataset(
            BIAS, (5,), "float32", external=[(str(secret), 0, 20)]
        )

    replace_bias(h5, make)
    with pytest.raises(ValueError, match="is not stored as a plain array"):
        read_weights(h5)


def test_virtual_data(h5, files):
    def make(file):
        layout = h5py.VirtualLayout((5,), "float32")
        layout[:] = h5py.VirtualSource(
            files / "small.weights.h5", BIAS, (5,), "float32"
        )
        file.create_virtual_dataset(BIAS, layout)

    replace_bias(h5, make)
    with pytest.raises(ValueError, match="is not stored as a plain array"):
        read_weights(h5)


def test_array_that_claims_more_than_is_stored(h5):
    def make(file):
        file.create_dataset(BIAS, (2**40,), "float32", chunks=(1024,))

    replace_bias(h5, make)
    with pytest.raises(ValueError, match="is not stored as a plain array"):
        read_weights(h5)


def test_group_that_contains_itself(h5):
    with h5py.File(h5, "a") as file:
        file["layers/dense/again"] = file["layers/dense"]
    with pytest.raises(ValueError, match="nested deeper"):
        read_weights(h5)


def test_keras_and_h5_hold_the_same(files):
    with zipfile.ZipFile(files / "small.keras") as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    path = pathlib.Path(files / "inner.weights.h5")
    path.write_bytes(content.getvalue())
    assert_same(read_weights(path), read_weights(files / "small.keras"))
