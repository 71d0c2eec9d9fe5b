"""Tests export/to_web.py."""

import json

import pytest

from convmixer_tf.models.additions import read_orientation
from tests.export_scripts.conftest import CLASSES
from tests.helpers import call_script


@pytest.mark.slow
def test_a_folder_and_its_report(model, images, tmp_path):
    path = tmp_path / "public" / "page"
    result = call_script(
        "export/to_web.py",
        *(model, *images, f"--output={path}", "--quantization=float32"),
        *("--description=Three colors.", "--orientation=stored"),
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "| top-1 agreement | 100.00% |" in result.stdout
    known = json.loads((path / "model.json").read_text())
    assert known["class_names"] == list(CLASSES)
    assert (known["image_size"], known["crop_fraction"]) == (16, 0.96)
    assert known["orientation"] == "stored"
    assert read_orientation(path / "model.tflite") == "stored"
    assert json.loads((tmp_path / "page.json").read_text())["passed"]
    names = {x.name for x in tmp_path.iterdir()}
    assert names == {"page.json", "page.md", "public"}
    assert list(path.parent.iterdir()) == [path]  # The folder is published.
    again = call_script("export/to_web.py", model, f"--output={path}")
    assert again.returncode == 1
    assert "exists. To replace it" in again.stderr
