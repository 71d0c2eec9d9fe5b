"""Tests export/to_tfhub.py."""

import json

import keras
import pytest

from convmixer_tf.models import save_model
from convmixer_tf.models.additions import read_crop_fraction
from tests.export_scripts.conftest import CLASSES
from tests.helpers import call_script
from tests.helpers import run_script

SCRIPT = "export/to_tfhub.py"


@pytest.mark.slow
def test_features(model, images, tmp_path):
    result = call_script(
        SCRIPT,
        *(model, f"--output={tmp_path / 'm'}", *images),
        *("--kind=feature_vector", "--max_pixel=1", "--license=mit"),
        "--dataset=three-colors",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "model.tar.gz |" in result.stdout
    report = json.loads((tmp_path / "m.json").read_text())
    assert set(report["differences"]) == {"features"}
    assert report["differences"]["features"]["max_relative"] < 1e-5
    assert read_crop_fraction(tmp_path / "m" / "saved_model") == 0.96
    page = (tmp_path / "m" / "README.md").read_text()
    assert "<!-- license: mit -->" in page
    assert "<!-- dataset: three-colors -->" in page
    card = (tmp_path / "m.md").read_text()
    assert "TF Hub module (feature_vector)" in card
    assert "three-colors" in card
    assert "pixels in [0, 1]" in card
    assert "| difference of features |" in card
    assert "**Pixels are in [0, 1]**" in page


@pytest.mark.large
def test_logits_of_labels_that_do_not_exclude_each_other(
    folder, images, tmp_path
):
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    model.get_layer("predictions").activation = keras.activations.sigmoid
    save_model(model, tmp_path / "sigmoid.keras", CLASSES)
    result = call_script(
        SCRIPT,
        *(f"--model={tmp_path / 'sigmoid.keras'}", *images),
        f"--output={tmp_path / 'm'}",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    report = json.loads((tmp_path / "m.json").read_text())
    assert report["differences"]["logits"]["max_relative"] < 1e-5
    assert report["accuracy"]["artifact"] > 0.6


OTHER_WEIGHTS = """
import keras
import convmixer_tf.export.tfhub as exporter
original = exporter.rebuilt
exporter.rebuilt = lambda model, *arguments: original(
    keras.models.clone_model(model), *arguments
)
"""


@pytest.mark.large
def test_what_differs_is_not_kept(model, images, tmp_path):
    result = run_script(
        SCRIPT,
        *(model, f"--output={tmp_path / 'm'}", *images),
        before=OTHER_WEIGHTS,
    )
    assert result.returncode == 1
    assert "is outside the limits" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["m.failed.json"]
