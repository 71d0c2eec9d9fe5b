"""Tests export/benchmark.py."""

import importlib.util
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
        "ONNX int8",
        "TFLite float32",
        "TFLite float16",
        "TFLite dynamic",
        "TFLite int4",
        "TFLite int8",
        "once more",
    ]
    for name, row in found.items():
        exact = "int" not in name and name != "TFLite dynamic"
        assert row["agreement"] >= (1 if exact else 0.7), name
        assert row["top1"] > 0.7, name
        assert row["bytes"] > 1000, name
        assert row["milliseconds"] > 0, name
        assert row["wall_milliseconds"] > 0, name
        assert f"| {name} | " in result.stdout
    assert found["Keras"]["largest_difference"] == 0
    assert found["SavedModel"]["runtime"].startswith("tf.saved_model.load")


@pytest.mark.large
@pytest.mark.peer
def test_peers(folder, model, images, tmp_path):
    pytest.importorskip("openvino", reason="needs openvino")
    pytest.importorskip("timm", reason="needs timm")
    output = tmp_path / "peers.json"
    result = run_script(
        *("export/benchmark.py", "--peers", "--threads=2", "--batch_size=4"),
        *(model, f"--output={output}", *images, "--turns=3"),
        f"--calibration={folder / 'calibration'}",
        before="from tests.peers import import_timm; import_timm()",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    results = json.loads(output.read_text())
    assert (results["threads"], results["batch_size"]) == (2, 4)
    found = {row["artifact"]: row for row in results["artifacts"]}
    assert list(found) == [
        "Keras predict",
        "Keras predict_on_batch",
        "ONNX, onnxruntime",
        "ONNX, OpenVINO",
        "ONNX, OpenVINO bfloat16",
        "ONNX int8, onnxruntime",
        "ONNX int8, OpenVINO",
        "TFLite float32, LiteRT",
        "TFLite int8, LiteRT",
        "PyTorch, torch.compile",
    ]
    for name, row in found.items():
        rounded = "int8" in name or "bfloat16" in name
        assert row["agreement"] >= (0.7 if rounded else 1), name


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--artifact=model.tflite", "`--artifact` must be NAME=PATH. Received"),
        ("--artifact=qat=/no/file", "`/no/file` does not exist"),
        ("--peers", "pip install onnxruntime openvino torch timm"),
    ],
)
def test_wrong_flags(
    folder, model, images, tmp_path, monkeypatch, flag, message
):
    # TensorFlow has already started here with its own number of threads.
    for kind in ("intra", "inter"):
        name = f"set_{kind}_op_parallelism_threads"
        monkeypatch.setattr(tf.config.threading, name, lambda number: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = call_script(
        "export/benchmark.py",
        *(model, f"--output={tmp_path / 'x.json'}", *images, flag),
        f"--calibration={folder / 'calibration'}",
    )
    assert result.returncode == 1
    assert message in result.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())
