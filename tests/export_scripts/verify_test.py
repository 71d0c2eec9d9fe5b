"""export/verify.py, as a user runs it."""

import json

import keras
import pytest

from convmixer_tf.export import export_tflite
from convmixer_tf.models import ConvMixer
from tests.helpers import randomize
from tests.helpers import run_script


@pytest.mark.large
def test_a_right_file_passes(folder, images, tmp_path):
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    export_tflite(model, tmp_path / "model.tflite")
    output = tmp_path / "report.json"
    result = run_script(
        "export/verify.py",
        *(folder / "model.keras", tmp_path / "model.tflite"),
        *(*images, f"--output={output}", "--limit=12"),
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "| verdict | within limits |" in result.stdout
    report = json.loads(output.read_text())
    assert report["passed"]
    assert report["agreement"] == 1
    assert (report["images"], report["labelled"]) == (12, 12)
    assert report["classes_seen"] == 3
    assert report["accuracy"]["model"] == report["accuracy"]["artefact"] > 0.6


def test_a_wrong_file_does_not_and_the_limit_is_named(folder, images, tmp_path):
    other = ConvMixer(16, 1, 3, 4, input_shape=(16, 16, 3), classes=3)
    randomize(other, seed=1).save(tmp_path / "other.keras")
    result = run_script(
        "export/verify.py",
        *(folder / "model.keras", tmp_path / "other.keras"),
        *(*images, "--max_difference=1"),
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Outside the limits: min_agreement: agreement 0.")
    assert "max_mean_difference" in last
    assert "max_difference" not in last
