"""ONNX files, run in onnxruntime."""

import builtins
import collections

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from convmixer_tf.export import deploy
from convmixer_tf.export import export_onnx
from convmixer_tf.export import onnx_export
from convmixer_tf.models import ConvMixer
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import relative_difference

IMAGES = asymmetric_image(24, 20, batch=5)


def convmixer(kernel_size=3, input_shape=(24, 20, 3), **arguments):
    arguments = {"classes": 5, "classifier_activation": None, **arguments}
    return randomize(
        ConvMixer(16, 2, kernel_size, 4, input_shape=input_shape, **arguments)
    )


def session(path, optimised=None):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimised:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(str(path), options)


def run(path, images):
    (outputs,) = session(path).run(None, {"image": images})
    return outputs


def doubled(x):
    """An activation that Keras does not know."""
    return 2 * keras.ops.tanh(x)


@pytest.mark.parametrize(
    ("kernel_size", "activation"), [(9, "gelu"), (4, "relu"), (3, doubled)]
)
def test_the_file_is_the_keras_model(tmp_path, kernel_size, activation):
    model = convmixer(kernel_size, activation=activation)
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    outputs = run(path, np.float32(IMAGES))
    assert relative_difference(outputs, model(IMAGES)) < 1e-5


def test_what_is_in_the_file(tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(convmixer(), path)
    content = onnx.load(path)
    assert {item.domain: item.version for item in content.opset_import}[
        ""
    ] == onnx_export.OPSET
    counts = collections.Counter(node.op_type for node in content.graph.node)
    assert counts["Erf"] == 5
    assert not {node.domain for node in content.graph.node} - {""}
    groups = [
        attribute.i
        for node in content.graph.node
        for attribute in node.attribute
        if attribute.name == "group"
    ]
    assert groups.count(16) >= 2
    (image,), (output,) = content.graph.input, content.graph.output
    assert (image.name, output.name) == ("image", "predictions")
    sides = [
        side.dim_param or side.dim_value
        for side in image.type.tensor_type.shape.dim
    ]
    assert sides == ["batch", 24, 20, 3]


def test_onnxruntime_knows_the_gelu(tmp_path):
    export_onnx(convmixer(), tmp_path / "model.onnx")
    session(tmp_path / "model.onnx", tmp_path / "optimised.onnx")
    optimised = onnx.load(tmp_path / "optimised.onnx").graph
    counts = collections.Counter(node.op_type for node in optimised.node)
    assert counts["Gelu"] == 5
    assert counts["Erf"] == 0


def test_one_image_of_8_bits_at_a_time(tmp_path):
    model, path = (
        convmixer(classifier_activation="softmax"),
        tmp_path / "m.onnx",
    )
    export_onnx(model, path, dynamic_batch=False, pixels="uint8")
    outputs = [run(path, image[None]) for image in IMAGES]
    difference = relative_difference(np.concatenate(outputs), model(IMAGES))
    assert difference < 1e-5
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        run(path, IMAGES)


def test_any_size_and_features(tmp_path):
    model = convmixer(input_shape=(None, None, 3), include_top=False)
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    for images in (IMAGES, IMAGES[:2, :16]):
        outputs = run(path, np.float32(images))
        assert relative_difference(outputs, model(images)) < 1e-5


def test_what_tf2onnx_cannot_convert_is_no_file(tmp_path, monkeypatch):
    """Of Keras' own GELU it makes an operator that does not exist."""
    monkeypatch.setattr(onnx_export, "_with_erf", lambda model: model)
    with pytest.raises(ValueError, match=r"can't convert .*No Op registered"):
        export_onnx(convmixer(), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_errors_leave_no_file(tmp_path, monkeypatch):
    model = deploy(convmixer())
    with pytest.raises(ValueError, match="ConvMixer"):
        export_onnx(model, tmp_path / "model.onnx")
    raw = convmixer(include_preprocessing=False)
    with pytest.raises(ValueError, match=r"must take pixels in \[0, 255\]"):
        export_onnx(raw, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="`pixels` must be one of"):
        export_onnx(model, tmp_path / "model.onnx", pixels="int8")
    with pytest.raises(ValueError, match=r"must end in \.onnx"):
        export_onnx(model, tmp_path / "model.tflite")

    def refuse(name, *arguments):
        if name == "tf2onnx":
            raise ModuleNotFoundError(name)
        return original(name, *arguments)

    original = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"convmixer_tf\[export\]"):
        export_onnx(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_on_request_only(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="pass `--overwrite`"):
        export_onnx(convmixer(), path)
    assert path.read_bytes() == b"precious"
