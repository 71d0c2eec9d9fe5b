"""Tests export/to_saved_model.py."""

import json
import re

import pytest
from tensorflow.core.protobuf import saved_model_pb2

from convmixer_tf.models.additions import read_crop_fraction
from tests.helpers import call_script
from tests.helpers import run_script

SCRIPT = "export/to_saved_model.py"


@pytest.mark.slow
def test_an_export(model, images, tmp_path):
    result = call_script(
        *(SCRIPT, model, f"--output={tmp_path}/saved/", *images),
        *("--limit=12", "--top=2"),
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
    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((tmp_path / "saved" / "saved_model.pb").read_bytes())
    outputs = proto.meta_graphs[0].signature_def["serve_encoded"].outputs
    sides = [side.size for side in outputs["top_labels"].tensor_shape.dim]
    assert sides == [-1, 2]


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
    assert "is not a report or a model card" in result.stderr
    assert {path: path.read_text() for path in tmp_path.iterdir()} == before


@pytest.mark.large
def test_another_folder_is_not_replaced(tmp_path):
    (tmp_path / "precious").write_text("mine")
    result = call_script(
        SCRIPT, f"--output={tmp_path}", "--model=missing", "--overwrite"
    )
    assert result.returncode == 1
    assert "it has no `saved_model.pb`" in result.stderr
