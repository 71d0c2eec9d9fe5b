"""export/to_saved_model.py, as a user runs it."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.models import read_crop_fraction
from tests.export_scripts.conftest import CLASSES
from tests.helpers import call_script
from tests.helpers import run_script

SCRIPT = "export/to_saved_model.py"


def test_an_export(folder, model, images, tmp_path):
    result = call_script(
        SCRIPT, model, f"--output={tmp_path}/saved/", *images, "--top=2"
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "| verdict | within limits |" in result.stdout
    for name in ("serve_uint8", "serve_encoded"):
        assert re.search(rf"\| {name} \| \d\S* \|", result.stdout)
    report = json.loads((tmp_path / "saved.json").read_text())
    assert report["runtime"].startswith("tf.saved_model.load")
    assert report["agreement"] == 1
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"saved", "saved.json", "saved.md"}
    assert read_crop_fraction(tmp_path / "saved") == 0.96
    card = (tmp_path / "saved.md").read_text()
    assert "toy, a SavedModel" in card
    assert "blue, green, red." in card
    assert f"| top-1 accuracy | {report['accuracy']['artifact']:.2%}, " in card
    file = (folder / "images" / "test" / "red" / "0.png").read_bytes()
    serve = tf.saved_model.load(tmp_path / "saved").signatures["serve_encoded"]
    best = serve(image_bytes=tf.constant([file, file]))
    assert best["top_labels"].shape == (2, 2)
    order = np.argsort(best["predictions"].numpy()[0])[::-1]
    labels = [label.decode() for label in best["top_labels"].numpy()[0]]
    assert labels == [CLASSES[i] for i in order[:2]]


OTHER_WEIGHTS = """
import keras
import convmixer_tf.export.saved_model as exporter
original = exporter.in_float32
exporter.in_float32 = lambda model: original(keras.models.clone_model(model))
"""
UPSIDE_DOWN = """
import convmixer_tf.export.saved_model as exporter
crop = exporter.resize_and_center_crop
exporter.resize_and_center_crop = lambda *arguments: crop(*arguments)[::-1]
"""


@pytest.mark.large
@pytest.mark.parametrize(
    ("spoil", "message", "left"),
    [
        (OTHER_WEIGHTS, "is outside the limits", ["saved.failed.json"]),
        (UPSIDE_DOWN, "serve_encoded differs from the Keras model by", []),
    ],
)
def test_what_differs_is_not_kept(
    model, images, tmp_path, spoil, message, left
):
    result = run_script(
        SCRIPT, model, f"--output={tmp_path}/saved", *images, before=spoil
    )
    assert result.returncode == 1
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == left


@pytest.mark.parametrize("name", ["summary", "model"])
def test_the_files_of_a_run_are_not_replaced(model, tmp_path, name):
    (tmp_path / "summary.json").write_text('{"top1": 0.9}')
    (tmp_path / "model.md").write_text("# A run's card")
    before = {path: path.read_text() for path in tmp_path.iterdir()}
    result = call_script(
        SCRIPT, model, f"--output={tmp_path / name}", "--noverify"
    )
    assert result.returncode == 1
    assert "is something else, and the report or" in result.stderr
    assert {path: path.read_text() for path in tmp_path.iterdir()} == before


@pytest.mark.large
def test_another_folder_is_not_replaced(tmp_path):
    (tmp_path / "precious").write_text("mine")
    result = call_script(
        SCRIPT, f"--output={tmp_path}", "--model=missing", "--overwrite"
    )
    assert result.returncode == 1
    assert "it has no `saved_model.pb`" in result.stderr
