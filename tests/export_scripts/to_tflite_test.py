"""Tests export/to_tflite.py."""

import json

import keras
import numpy as np
import pytest

from convmixer_tf.data import open_dataset
from convmixer_tf.data import read_images
from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import read_metadata
from convmixer_tf.models import ConvMixer
from tests.export_scripts.conftest import CLASSES
from tests.helpers import call_script

SCRIPT = "export/to_tflite.py"


@pytest.mark.slow
def test_without_verifying(folder, model, tmp_path):
    result = call_script(
        SCRIPT,
        *(model, f"--output={tmp_path / 'new'}"),
        *("--noverify", "--quantization=float16"),
    )
    assert result.returncode == 0, result.stderr[-2000:]
    path, card = sorted((tmp_path / "new").iterdir())
    assert path.name == "toy_float16.tflite"
    assert card.name == f"{path.name}.md"
    assert read_metadata(path).crop_fraction == 0.96  # From the model file.
    assert "**Measured**: not measured." in card.read_text()
    assert f"{path}: {path.stat().st_size:,} bytes" in result.stdout
    images, _ = read_images(open_dataset(str(folder / "images"), "test"), 16, 4)
    copied = keras.saving.load_model(folder / "model.keras", compile=False)
    expected = copied.predict(images, verbose=0)
    assert np.abs(LiteRTModel(path).predict(images) - expected).max() < 0.02


def test_a_folder_without_a_file_is_not_left(tmp_path):
    output = tmp_path / "new" / "folder"
    result = call_script(SCRIPT, "--model=missing", f"--output={output}")
    assert result.returncode == 1
    assert "a run folder or a weights file" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_calibrating_with_photos_a_model_of_gray_images(folder, tmp_path):
    gray = ConvMixer(4, 1, 3, 4, input_shape=(16, 16, 1), classes=3)
    gray.save(tmp_path / "gray.keras")
    result = call_script(
        SCRIPT,
        *(f"--model={tmp_path / 'gray.keras'}", f"--output={tmp_path}"),
        *("--noverify", "--quantization=int8"),
        f"--calibration={folder / 'calibration'}",
    )
    assert result.returncode == 1
    assert "shape (16, 16, 1). Pass another --quantization." in result.stderr


@pytest.mark.large
def test_a_format_that_fails_does_not_stop_the_others(model, images, tmp_path):
    result = call_script(
        SCRIPT,
        *(model, f"--output={tmp_path}", *images),
        *(
            "--quantization=int4",
            "--quantization=float32",
            "--max_mean_difference=1e-6",
        ),
    )
    assert result.returncode == 1
    assert "| float32 |" in result.stdout
    assert "toy_int4.tflite` was not written" in result.stderr.splitlines()[-1]
    names = {path.name for path in tmp_path.iterdir()}
    assert {"toy_float32.tflite", "toy_int4.tflite.failed.json"} <= names
    assert "toy_int4.tflite" not in names


@pytest.mark.large
def test_several_formats_at_once(folder, model, images, tmp_path):
    result = call_script(
        SCRIPT,
        *(model, f"--output={tmp_path}", *images),
        f"--calibration={folder / 'calibration'}",
        *(
            "--quantization=dynamic",
            "--quantization=int8",
            "--description=Three colors.",
        ),
        *("--min_agreement=0", "--output_dtype=uint8"),
        "--max_mean_difference=0.1",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "| dynamic |" in result.stdout
    assert "| int8 |" in result.stdout
    pixels, _ = read_images(open_dataset(str(folder / "images"), "test"), 16)
    for quantization, dtype in (("dynamic", "float32"), ("int8", "uint8")):
        path = tmp_path / f"toy_{quantization}.tflite"
        report = json.loads((tmp_path / f"{path.name}.json").read_text())
        assert report["passed"]
        assert (report["quantization"], report["images"]) == (quantization, 36)
        assert report["outputs"][0]["dtype"] == dtype
        assert LiteRTModel(path).predict(pixels).shape == (36, 3)
        metadata = read_metadata(path)
        assert metadata.class_names == CLASSES
        assert metadata.name == "toy"
        assert metadata.description == "Three colors."
