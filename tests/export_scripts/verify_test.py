"""Tests export/verify.py."""

import json
import shutil
import zipfile

import keras
import pytest

from convmixer_tf.export import export_tflite
from convmixer_tf.models import ConvMixer
from tests.helpers import call_script
from tests.helpers import randomize


@pytest.mark.large
def test_a_right_file_passes(folder, images, tmp_path):
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    export_tflite(model, tmp_path / "model.tflite")
    output = tmp_path / "report.json"
    result = call_script(
        "export/verify.py",
        *(folder / "model.keras", tmp_path / "model.tflite"),
        *(*images, f"--output={output}", "--limit=12"),
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "| verdict | within limits |" in result.stdout
    report = json.loads(output.read_text())
    assert report["passed"]
    assert report["agreement"] == 1
    assert (report["images"], report["labeled"]) == (12, 12)
    assert report["classes_seen"] == 3
    assert report["accuracy"]["model"] == report["accuracy"]["artifact"] > 0.6


@pytest.mark.parametrize("name", ["model.tflite", "model.onnx", "saved_model"])
def test_the_model_comes_first(folder, tmp_path, name):
    (tmp_path / name).mkdir()
    result = call_script(
        "export/verify.py",
        *(tmp_path / name, folder / "model.keras"),
        f"--output={tmp_path / 'new' / 'report.json'}",
    )
    assert result.returncode == 1
    assert "Error: The first argument must be the" in result.stderr
    assert not (tmp_path / "new").exists()


def test_the_crop_is_the_models_or_else_the_files(folder, images, tmp_path):
    keras.saving.load_model(folder / "model.keras", compile=False).save(
        tmp_path / "silent.keras"
    )
    shutil.copy(tmp_path / "silent.keras", tmp_path / "odd.keras")
    with zipfile.ZipFile(tmp_path / "odd.keras", "a") as archive:
        archive.writestr("evaluation.json", '{"crop_fraction": 7}')
    silent, odd = tmp_path / "silent.keras", tmp_path / "odd.keras"
    result = call_script("export/verify.py", silent, odd, *images)
    assert result.returncode == 1
    assert "must hold a `crop_fraction` from 0.01 to 1" in result.stderr


@pytest.mark.slow
def test_a_wrong_file_does_not_and_the_limit_is_named(folder, images, tmp_path):
    other = ConvMixer(16, 1, 3, 4, input_shape=(16, 16, 3), classes=3)
    randomize(other, seed=1).save(tmp_path / "other.keras")
    result = call_script(
        "export/verify.py",
        *(folder, tmp_path / "other.keras"),  # The folder of a run.
        *(*images, "--max_difference=1"),
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Outside the limits: min_agreement: agreement 0.")
    assert "max_mean_difference" in last
    assert "max_difference" not in last
