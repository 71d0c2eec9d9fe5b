"""Tests recipes/benchmark_map.py, and `convmixer map` with Ray's processes."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from PIL import Image

from tests.helpers import ROOT
from tests.helpers import asymmetric_image

pytest.importorskip("ray.data")
pytestmark = pytest.mark.large


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """640 files: links to twelve images that decode slowly, and one broken."""
    folder = tmp_path_factory.mktemp("photos")
    for number, pixels in enumerate(asymmetric_image(1800, 1700, batch=12)):
        Image.fromarray(pixels).save(folder / f"{number:03d}.jpg")
    for number in range(12, 639):
        path = folder / f"{number:03d}.jpg"
        path.symlink_to(folder / f"{number * 7 % 12:03d}.jpg")
    (folder / "639.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(autouse=True)
def _ours(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_the_rows_are_the_same_whatever_dies(photos, run_recipe, tmp_path):
    output = tmp_path / "killed.json"
    code, _, log = run_recipe(
        "benchmark_map.py", f"--images={photos}", "--kill", f"--output={output}"
    )
    assert code == 0, log
    results = json.loads(output.read_text())["results"]
    assert results == {
        "images": 640,
        "files": 10,
        "errors": 1,
        "equal_rows": 640,
    }


def test_it_measures(photos, run_recipe, tmp_path):
    output = tmp_path / "map.json"
    flags = ("--few=2", "--many=8", "--workers=1", f"--output={output}")
    code, _, log = run_recipe("benchmark_map.py", f"--images={photos}", *flags)
    assert code == 0, log
    results = json.loads(output.read_text())["results"]
    assert list(results) == ["predict", "map, 1 workers"]
    assert results["predict"]["runs"]["8"]["peak_mb"] > 100


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "convmixer_tf", "map", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_interrupted_run_is_resumed(photos, load_recipe, tmp_path):
    recipe, output = load_recipe("benchmark_map"), tmp_path / "output"
    process = start(photos, "--output", output)
    recipe.wait_for_parts(process, output, 2)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130, said
    assert said.endswith("Interrupted.\n")
    assert "of 640 images are written. Run the same command" in said
    done = len(list(output.glob("part-*")))
    assert done < 10
    said = start(photos, "--output", output).communicate()[1]
    line = f"{640 - 64 * done} of them computed now. Images with an error: 1."
    assert line in said


def test_a_broken_model_is_one_line(photos, tmp_path):
    pathlib.Path(tmp_path / "bad.keras").write_text("no model")
    output = tmp_path / "output"
    process = start(photos, f"--model={tmp_path}/bad.keras", "--output", output)
    said = process.communicate()[1]
    assert process.returncode == 1
    assert "ValueError: Cannot read a model from" in said
    assert "Traceback" not in said
    assert os.listdir(output) == []
