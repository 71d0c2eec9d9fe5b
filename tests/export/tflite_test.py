"""TFLite files, run in a runtime that is not the one that made them."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import export_tflite
from convmixer_tf.models import ConvMixer
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import relative_difference

IMAGES = asymmetric_image(24, 20, batch=20)


@pytest.fixture(scope="module")
def model():
    return randomize(
        ConvMixer(
            16,
            2,
            3,
            4,
            input_shape=(24, 20, 3),
            classes=5,
            classifier_activation=None,
        )
    )


def details(path):
    interpreter = Interpreter(str(path))
    (image,) = interpreter.get_input_details()
    operators = {op["op_name"] for op in interpreter._get_ops_details()}
    return image, interpreter.get_signature_list(), operators


def test_float32_is_the_keras_model(model, tmp_path):
    path = tmp_path / "model.tflite"
    export_tflite(model, path)
    outputs = LiteRTModel(path).predict(IMAGES)
    assert outputs.dtype == np.float32
    assert relative_difference(outputs, model(IMAGES)) < 1e-5
    image, signatures, operators = details(path)
    assert tuple(image["shape"]) == (1, 24, 20, 3)
    assert signatures == {
        "serving_default": {"inputs": ["image"], "outputs": ["predictions"]}
    }
    assert "DEPTHWISE_CONV_2D" in operators
    assert not {op for op in operators if "Flex" in op or "CUSTOM" in op}


def test_int8_takes_pixels_as_they_are_and_stays_close(model, tmp_path):
    path = tmp_path / "model.tflite"
    export_tflite(model, path, quantization="int8", calibration_images=IMAGES)
    image, _, operators = details(path)
    assert image["dtype"] == np.uint8
    assert image["quantization"] == (1.0, 0)
    assert not {op for op in operators if "Flex" in op or "CUSTOM" in op}
    outputs = LiteRTModel(path).predict(IMAGES)
    assert outputs.dtype == np.float32
    assert 0 < relative_difference(outputs, model(IMAGES)) < 0.1


def test_weights_are_in_the_file(model, tmp_path):
    sizes = {}
    for quantization in (None, "int8"):
        path = tmp_path / f"{quantization}.tflite"
        images = IMAGES if quantization else None
        export_tflite(
            model, path, quantization=quantization, calibration_images=images
        )
        sizes[quantization] = path.stat().st_size
    assert sizes[None] > 4 * model.count_params()
    assert model.count_params() < sizes["int8"] < sizes[None]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_models_trained_in_half_precision(model, tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    half = keras.models.clone_model(model, clone_function=_half)
    half.set_weights(model.get_weights())
    assert half.get_layer("block_1").depthwise.compute_dtype in policy
    export_tflite(half, tmp_path / "model.tflite")
    outputs = LiteRTModel(tmp_path / "model.tflite").predict(IMAGES)
    assert relative_difference(outputs, model(IMAGES)) < 1e-5


def _half(layer):
    config = layer.get_config()
    if layer.name.startswith(("block", "patch")):
        config["dtype"] = keras.config.dtype_policy().name
    return type(layer).from_config(config)


def test_other_backends_are_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow"):
        export_tflite(model, tmp_path / "model.tflite")


def test_errors_leave_no_file(model, tmp_path):
    path = tmp_path / "model.tflite"
    free = ConvMixer(4, 1, 3, 4, input_shape=(None, None, 3))
    for bad, arguments, message in (
        (model, {"quantization": "int4"}, "`quantization` must be one of"),
        (
            model,
            {"quantization": "int8"},
            "needs `calibration_images`, an array",
        ),
        (
            model,
            {"quantization": "int8", "calibration_images": IMAGES[:, :9]},
            r"Received: shape \(20, 9, 20, 3\)",
        ),
        (
            model,
            {"quantization": "int8", "calibration_images": IMAGES[:0]},
            "needs `calibration_images`",
        ),
        (
            model,
            {"quantization": "int8", "calibration_images": IMAGES / 255},
            r"must be of pixels in \[0, 255\]. Received: values from",
        ),
        (model, {"calibration_images": IMAGES}, 'needs `quantization="int8"`'),
        (free, {}, "one input of a static height and width"),
    ):
        with pytest.raises(ValueError, match=message):
            export_tflite(bad, path, **arguments)
    with pytest.raises(ValueError, match=r"must end in \.tflite"):
        export_tflite(model, tmp_path / "model.h5")
    with pytest.raises(FileNotFoundError, match="There is no directory"):
        export_tflite(model, tmp_path / "missing" / "model.tflite")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_on_request_only(model, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="pass `overwrite`"):
        export_tflite(model, path)
    assert path.read_bytes() == b"precious"
    export_tflite(model, path, overwrite=True)
    assert LiteRTModel(path).predict(IMAGES[:1]).shape == (1, 5)


def test_running_what_is_no_file_or_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        LiteRTModel(tmp_path / "missing.tflite")
    (tmp_path / "text.tflite").write_text("not a model")
    with pytest.raises(ValueError, match=r"text.tflite` is not a whole TFL"):
        LiteRTModel(tmp_path / "text.tflite")


@pytest.mark.parametrize("shape", [(24, 20, 3), (1, 20, 24, 3), (0, 24, 20, 3)])
def test_running_other_shapes(model, tmp_path, shape):
    export_tflite(model, tmp_path / "model.tflite")
    runner = LiteRTModel(tmp_path / "model.tflite")
    with pytest.raises(ValueError, match=r"of shape \(batch, 24, 20, 3\)"):
        runner.predict(np.zeros(shape))
