"""Tests which files the report of an artifact may replace."""

import json
import pathlib

import pytest

from convmixer_tf.export import publish
from convmixer_tf.models import ConvMixer


def write(path):
    pathlib.Path(path).write_text("exported")


@pytest.mark.parametrize(
    ("beside", "error"),
    [
        # From a version that measured latency.
        ({"artifact": "old/model.onnx", "latency": {"rounds": 7}}, None),
        ({"artifact": "other.onnx"}, FileExistsError),
        ({"accuracy": 1}, FileExistsError),
    ],
)
def test_only_a_report_of_the_artifact_may_be_replaced(tmp_path, beside, error):
    model = ConvMixer(4, 1, 3, 4, input_shape=(16, 16, 3), classes=3)
    path = tmp_path / "model.onnx"
    (tmp_path / "model.onnx.json").write_text(json.dumps(beside))
    if error:
        with pytest.raises(error, match=r"model\.onnx\.json` is not a report"):
            publish(write, path, model, "an ONNX file")
        assert not path.exists()
    else:
        publish(write, path, model, "an ONNX file")
        assert path.read_text() == "exported"
