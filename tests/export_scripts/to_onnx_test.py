"""Tests export/to_onnx.py."""

import json

import pytest

from tests.helpers import call_script


@pytest.mark.large
def test_an_export_that_passes(model, images, tmp_path):
    path = tmp_path / "model.onnx"
    for again in ((), ("--overwrite",)):
        result = call_script(
            "export/to_onnx.py", model, f"--output={path}", *images, *again
        )
        assert result.returncode == 0, result.stderr[-2000:]
    assert path.stat().st_size > 1000
    report = json.loads((tmp_path / "model.onnx.json").read_text())
    assert report["passed"]
    assert report["artifact"] == str(path)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.slow
def test_an_export_that_fails_is_not_there(model, images, tmp_path):
    """No float32 file is that accurate because sums are reordered."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"precious")
    result = call_script(
        "export/to_onnx.py",
        *(model, f"--output={path}", *images),
        *("--max_mean_difference=0", "--overwrite"),
    )
    assert result.returncode == 1
    assert "was not written" in result.stderr.splitlines()[-1]
    assert "max_mean_difference: mean difference" in result.stderr
    assert path.read_bytes() == b"precious"
    report = json.loads((tmp_path / "model.onnx.failed.json").read_text())
    assert set(report["broken"]) == {"max_mean_difference"}
    assert len(list(tmp_path.iterdir())) == 2
