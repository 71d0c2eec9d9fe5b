"""Tests the quickstart."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.helpers import call_script

RECIPE = pathlib.Path(__file__).parents[2] / "recipes" / "train_digits.py"


def run(*arguments):
    return subprocess.run(
        [sys.executable, RECIPE, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )


@pytest.mark.large
def test_it_does_what_the_readme_says_and_again(tmp_path):
    output = tmp_path / "digits"
    result = run("--output", output)
    assert result.returncode == 0, result.stderr[-3000:]
    results = json.loads((output / "results.json").read_text())
    assert results["images"] == 360
    rows = {row["model"]: row for row in results["models"]}
    assert rows["Keras"]["top1"] >= 0.98
    assert rows["TFLite float32"]["agreement"] == 1
    assert rows["TFLite int8"]["top1"] >= rows["Keras"]["top1"] - 0.01
    assert rows["TFLite int8"]["bytes"] < rows["TFLite float32"]["bytes"]
    picture = output / "predictions.png"
    for made in (picture, output / "curve.png"):
        assert made.read_bytes().startswith(b"\x89PNG")
    for name, row in rows.items():
        assert name in result.stdout
        assert os.path.getsize(picture.parent / row["file"]) == row["bytes"]

    summary = (output / "summary.json").read_text()
    os.remove(output / "digits_int8.tflite")
    result = run("--output", output)
    assert result.returncode == 0, result.stderr[-3000:]
    assert f"The run in {output} is finished" in result.stdout
    assert (output / "summary.json").read_text() == summary
    again = json.loads((output / "results.json").read_text())
    assert again["models"] == results["models"]


def test_wrong_flags_end_it_at_once(tmp_path):
    for flags, message in (
        (["--epochs", "0"], "epochs"),
        (["--output", tmp_path, "surplus"], "Unexpected arguments"),
    ):
        result = call_script("recipes/train_digits.py", *flags)
        assert result.returncode != 0
        assert message in result.stderr + result.stdout
    assert list(tmp_path.iterdir()) == []
