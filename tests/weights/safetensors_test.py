"""Tests reading .safetensors files, valid and damaged."""

import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save
from safetensors.numpy import save_file

from convmixer_tf.weights import read_weights
from tests.weights.damage import count_found
from tests.weights.samples import assert_same
from tests.weights.samples import flat_names
from tests.weights.samples import model_weights
from tests.weights.samples import random_state_dict
from tests.weights.samples import random_weights
from tests.weights.samples import small_model


@pytest.mark.parametrize(
    "dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64"]
)
def test_precisions(tmp_path, dtype):
    path = tmp_path / "weights.safetensors"
    save_file(random_state_dict(dtype=dtype), path)
    assert_same(read_weights(path), random_weights(dtype=dtype))


def test_names_of_the_authors(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(
        {flat_names()[n]: v for n, v in random_state_dict().items()}, path
    )
    assert_same(read_weights(str(path)), random_weights())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(tmp_path, value):
    path = tmp_path / "weights.safetensors"
    state_dict = random_state_dict()
    state_dict["blocks.1.3.running_var"][2] = value
    save_file(state_dict, path)
    with pytest.raises(
        ValueError,
        match=r"weights\.safetensors`: .*not finite, in "
        r"block_1/pointwise_norm/moving_variance\.",
    ):
        read_weights(path)


def test_integers(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(
        {**random_state_dict(), "head.bias": np.zeros(5, "int8")},
        path,
    )
    with pytest.raises(
        ValueError, match=r"`predictions/bias` must hold floating.*int8"
    ):
        read_weights(path)


def test_no_weights(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({}, path)
    with pytest.raises(ValueError, match="holds no ConvMixer"):
        read_weights(path)


def test_another_model(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"conv1.weight": np.zeros((1, 2, 3, 4), "float32")}, path)
    with pytest.raises(
        ValueError,
        match=rf"Cannot read weights from `{path}`: .*conv1\.weight",
    ):
        read_weights(path)


def test_truncated_anywhere(tmp_path):
    path = tmp_path / "weights.safetensors"
    content = save(random_state_dict())
    for size in [1, 7, 8, 9, 100, 2000, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(
            ValueError, match=r"is not a .*safetensors.* or is truncated"
        ):
            read_weights(path)


def test_bytes_at_the_end(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(save(random_state_dict()) + b"\0")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        read_weights(path)


def test_any_flipped_byte_of_the_header_is_found_or_harmless(tmp_path):
    path = tmp_path / "weights.safetensors"
    content = save(random_state_dict(), metadata={"format": "pt"})
    header = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(content)

    def check(weights):
        # Metadata, a counter that isn't read, or a missing name.
        assert set(weights) <= set(random_weights())

    found = count_found(path, range(0, header, 7), 0x11, check)
    assert found > header // 7 * 0.8


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n", b"<html>404</html>" * 100, b"\xff" * 64]
)
def test_other_content(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        ValueError,
        match=rf"`{path}`: it is (empty|not a Keras, safetensors)",
    ):
        read_weights(path)


def test_no_such_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(
        FileNotFoundError, match=f"file `{path}` does not exist"
    ):
        read_weights(path)


def test_directory(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.mkdir()
    with pytest.raises(ValueError, match="it is not a file"):
        read_weights(path)


@pytest.mark.parametrize("name", ["w.h5", "w.ckpt", "w", "W.PTH", "w.keras"])
def test_content_decides_and_not_the_name(tmp_path, name):
    path = tmp_path / name
    save_file(random_state_dict(), path)
    assert_same(read_weights(path), random_weights())
    assert_same(model_weights(small_model(weights=path)), random_weights())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"version https://git-lfs.github.com/",
            "starts with .*git-lfs",
        ),
        (b"<!DOCTYPE html><html>", "starts with .*DOCTYPE"),
        (b"\x1c\0\0\0TFL3" + b"\0" * 99, "starts with .*TFL3"),
        (b"PK\x03\x04" + b"\0" * 99, "zip archive that is damaged or trunc"),
    ],
)
def test_what_the_file_is_instead(tmp_path, content, message):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_weights(path)
    assert error.value.__suppress_context__


def test_another_zip_archive(tmp_path):
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday.jpg", b"")
    with pytest.raises(
        ValueError, match=r"not from Keras 3 .* It holds: holiday\.jpg"
    ):
        read_weights(path)
