"""export/benchmark.py, as a user runs it."""

import json

import pytest
import tensorflow as tf

from tests.helpers import call_script
from tests.helpers import run_script


@pytest.mark.large
def test_every_kind(folder, model, images, tmp_path):
    output = tmp_path / "artifacts.json"
    result = run_script(
        "export/benchmark.py",
        *(model, f"--output={output}", *images, "--turns=3"),
        f"--calibration={folder / 'calibration'}",
        f"--artifact=once more={folder / 'model.keras'}",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    results = json.loads(output.read_text())
    assert results["images"] == 36
    found = {row["artifact"]: row for row in results["artifacts"]}
    assert list(found) == [
        "Keras",
        "SavedModel",
        "TF Hub module",
        "ONNX",
        "TFLite float32",
        "TFLite float16",
        "TFLite dynamic",
        "TFLite int4",
        "TFLite int8",
        "once more",
    ]
    for name, row in found.items():
        exact = name in list(found)[:6] or name == "once more"
        assert row["agreement"] >= (1 if exact else 0.7), name
        assert row["top1"] > 0.7, name
        assert row["bytes"] > 1000, name
        assert row["milliseconds"] > 0, name
        assert f"| {name} | " in result.stdout
    assert found["Keras"]["largest_difference"] == 0
    assert found["SavedModel"]["runtime"].startswith("tf.saved_model.load")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--artifact=model.tflite", "`--artifact` must be NAME=PATH. Received"),
        ("--artifact=qat=/no/file", "There is nothing at `/no/file`"),
    ],
)
def test_wrong_flags(
    folder, model, images, tmp_path, monkeypatch, flag, message
):
    # TensorFlow has started here, with as many threads as it likes.
    for kind in ("intra", "inter"):
        name = f"set_{kind}_op_parallelism_threads"
        monkeypatch.setattr(tf.config.threading, name, lambda number: None)
    result = call_script(
        "export/benchmark.py",
        *(model, f"--output={tmp_path / 'x.json'}", *images, flag),
        f"--calibration={folder / 'calibration'}",
    )
    assert result.returncode == 1
    assert message in result.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())
