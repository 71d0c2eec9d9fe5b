"""Tests reading .weights.h5 and .keras files: valid, damaged, malicious."""

import io
import pathlib
import zipfile

import h5py
import keras
import numpy as np
import pytest

from convmixer_tf.weights import load_weights
from convmixer_tf.weights import read_weights
from convmixer_tf.weights import timm_state_dict
from convmixer_tf.weights.names import to_keras
from tests.weights.damage import check_flipped_bytes
from tests.weights.damage import count_found
from tests.weights.samples import QUANTIZATIONS
from tests.weights.samples import assert_same
from tests.weights.samples import assign
from tests.weights.samples import model_weights
from tests.weights.samples import quantized
from tests.weights.samples import random_weights
from tests.weights.samples import small_model
from tests.weights.samples import with_lora


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


@pytest.mark.slow
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
    colors = keras.layers.Conv2D(3, 1, name="colors")(inputs)
    model = small_model(input_tensor=colors, input_shape=None)
    model.save_weights(tmp_path / "small.weights.h5")
    with pytest.raises(
        ValueError, match=r"has: colors\. .*its own `load_weights`"
    ):
        read_weights(tmp_path / "small.weights.h5")


@pytest.mark.parametrize("name", ["small.weights.h5", "small.keras"])
def test_truncated_anywhere(files, tmp_path, name):
    content = (files / name).read_bytes()
    path = tmp_path / name
    for size in [1, 8, 100, 1000, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=rf"`{path}`: it is .* truncated"):
            read_weights(path)


@pytest.mark.parametrize("name", ["small.weights.h5", "small.keras"])
@pytest.mark.parametrize("content", [b"", b"not a file of Keras" * 99])
def test_other_content(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"`{path}`: it is (empty|not a)"):
        read_weights(path)


def test_any_flipped_byte_is_found_or_reads_as_weights(h5):
    check_flipped_bytes(h5, 499, set(random_weights()))


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
    path.write_bytes(content)
    offsets = range(len(content) - 400, len(content), 2)

    def check(weights):
        assert_same(weights, random_weights())

    found = count_found(path, offsets, 8, check)
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
    """Replaces one dataset with the result of `make(group)`."""
    with h5py.File(path, "a") as file:
        del file[BIAS]
        make(file)


def test_link_to_another_file(h5, files):
    def make(file):
        other = str(files / "small.weights.h5")
        file[BIAS] = h5py.ExternalLink(other, BIAS)

    replace_bias(h5, make)
    with pytest.raises(ValueError, match="is a link"):
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


def save_as(model, directory, suffix):
    """Saves a model in one of the two formats."""
    path = directory / f"saved{suffix}"
    (model.save if suffix == ".keras" else model.save_weights)(path)
    return path


@pytest.mark.parametrize(
    ("suffix", "classes"), [(".keras", 5), (".weights.h5", 1)]
)
@pytest.mark.parametrize("mode", QUANTIZATIONS)
def test_quantized_classifier(tmp_path, mode, classes, suffix):
    model = quantized(small_model(classes=classes), mode)
    path = save_as(model, tmp_path, suffix)
    assert_same(read_weights(path), to_keras(timm_state_dict(model)))


def test_calibrated_classifier_is_refused(tmp_path):
    """Keras 3.15 saves it without its zeros and can't load it either."""
    layer = keras.layers.Dense(
        5, dtype="gptq/8/-1_from_float32", name="predictions"
    )
    body = small_model(include_top=False, pooling="avg")
    model = keras.Model(body.input, layer(body.output))
    path = save_as(model, tmp_path, ".weights.h5")
    with pytest.raises(ValueError, match=r"must have 2 variables.*Received: 4"):
        read_weights(path)


def test_damaged_quantized_classifier(tmp_path):
    model = quantized(small_model(), "int4 in blocks")
    path = save_as(model, tmp_path, ".weights.h5")
    with h5py.File(path, "r+") as file:
        file["layers/dense/vars/4"][...] = 99
    with pytest.raises(ValueError, match="classifier can't be read as int4"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_lora_is_merged(tmp_path, suffix):
    model = small_model()
    block = model.get_layer("block_0")
    with_lora(model, block.pointwise, model.get_layer("predictions"))
    expected = to_keras(timm_state_dict(model))
    actual = read_weights(save_as(model, tmp_path, suffix))
    assert set(actual) == set(expected)
    for path, value in expected.items():
        np.testing.assert_allclose(actual[path], value, rtol=1e-5, atol=1e-6)


class Wrapper(keras.Model):
    """A subclassed model that contains a ConvMixer."""

    def __init__(self):
        super().__init__()
        self.body = small_model(include_top=False, pooling="avg")
        self.last = keras.layers.Dense(2, name="last")

    def call(self, x):
        return self.last(self.body(x))


@pytest.mark.parametrize("kind", ["functional", "Sequential", "subclass"])
def test_a_convmixer_within_another_model(tmp_path, kind):
    image = keras.Input((8, 8, 3))
    body = small_model(include_top=False, pooling="avg")
    if kind == "functional":
        last = keras.layers.Dense(2, name="last")
        model = keras.Model(image, last(body(image)))
    elif kind == "Sequential":
        model = keras.Sequential([image, body, keras.layers.Dense(2)])
    else:
        model = Wrapper()
        model(np.zeros((1, 8, 8, 3), "float32"))
        body = model.body
    assign(body, random_weights())
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)  # It is in the file, too.
    for suffix in (".keras", ".weights.h5"):
        path = save_as(model, tmp_path, suffix)
        again = small_model(include_top=False)
        with pytest.warns(
            UserWarning, match=r"were not read: \S*(last|dense)\w*\.$"
        ):
            load_weights(again, path)
        assert_same(model_weights(again), model_weights(body))


def test_two_convmixers(tmp_path):
    image = keras.Input((8, 8, 3))
    parts = [small_model(name=name) for name in ("student", "teacher")]
    model = keras.Model(image, keras.layers.add([p(image) for p in parts]))
    path = save_as(model, tmp_path, ".weights.h5")
    with pytest.raises(ValueError, match="2 ConvMixers: `student`, `teacher`"):
        read_weights(path)
    with pytest.warns(UserWarning, match="were not read: student/"):
        actual = read_weights(path, key="teacher")
    expected = model_weights(parts[1])
    assert_same(actual, expected)
