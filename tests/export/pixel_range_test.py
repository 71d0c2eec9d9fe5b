"""Tests classifiers of other architectures, up to verified files."""

import json

import keras
import numpy as np
import pytest

from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import export_onnx
from convmixer_tf.export import export_tflite
from convmixer_tf.export import publish
from convmixer_tf.export import read_metadata
from convmixer_tf.export import with_pixel_range
from convmixer_tf.export.pixel_range import has_pixel_range
from convmixer_tf.inference.classifiers import load_classifier
from convmixer_tf.models import load_model
from tests.helpers import run_script
from tests.helpers import tell_apart
from tests.helpers import write_images

CLASSES = ("blue", "green", "red")
SHAPE = (24, 24, 3)


def stock_model():
    """Builds a small network of Keras' own layers, for pixels in [-1, 1]."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input(SHAPE),
        keras.layers.Conv2D(8, 3, 2, activation="relu6"),
        keras.layers.DepthwiseConv2D(3, padding="same"),
        keras.layers.BatchNormalization(),
        keras.layers.Activation("hard_silu"),
        keras.layers.GlobalAveragePooling2D(name="avg_pool"),
        keras.layers.Dense(3, "softmax", name="predictions"),
    ]
    return keras.Sequential(layers, name="stock")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    labels = np.arange(36) % 3
    images = rng.integers(0, 80, (36, *SHAPE))
    images[np.arange(36), :, :, 2 - labels] += 150
    return images.astype(np.uint8), labels


@pytest.fixture(scope="module")
def model(images):
    inner = stock_model()
    tell_apart(inner, images[0] / 127.5 - 1, images[1])
    return with_pixel_range(inner, "-1..1")


@pytest.mark.parametrize(
    ("pixel_range", "expected"),
    [
        ("0..255", [0, 255]),
        ("0..1", [0, 1]),
        ("-1..1", [-1, 1]),
        ("127.5/127.5", [-1, 1]),
        ("10,20,30/2,4,5", [(-5, -5, -6), (122.5, 58.75, 45)]),
    ],
)
def test_black_and_white(pixel_range, expected):
    inner = keras.Sequential([keras.Input(SHAPE), keras.layers.Identity()])
    model = with_pixel_range(inner, pixel_range)
    assert has_pixel_range(model)
    assert not has_pixel_range(inner)
    pixels = np.stack([np.zeros(SHAPE), np.full(SHAPE, 255)])
    found = model.predict(pixels, verbose=0)
    expected = np.stack([np.broadcast_to(x, SHAPE) for x in expected])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "text", ["", "1..0", "0-255", "1..1", "1,2/3,4", "0/0", "0..1..2", "1/300"]
)
def test_what_is_no_pixel_range(text):
    with pytest.raises(ValueError, match=r'such as "0..255".*3 channels'):
        with_pixel_range(stock_model(), text)


@pytest.mark.parametrize("quantization", ["float16", "int8"])
def test_files_are_verified(model, images, quantization, tmp_path):
    path = tmp_path / "stock.tflite"

    def write(unfinished):
        export_tflite(
            model,
            unfinished,
            quantization=quantization,
            calibration_images=images[0] if quantization == "int8" else None,
            class_names=CLASSES,
        )

    report = publish(
        write,
        path,
        model,
        "a TFLite file",
        images=images[0],
        labels=images[1],
        class_names=CLASSES,
    )
    assert report.quantization == quantization
    assert report.accuracy["artifact"] == 1
    assert json.loads((tmp_path / "stock.tflite.json").read_text())["passed"]
    card = (tmp_path / "stock.tflite.md").read_text()
    assert "weights), exported by convmixer_tf as a TFLite file" in card
    assert "ConvMixer" not in card
    assert "pixels in [0, 255]" in card
    metadata = read_metadata(path)
    assert (metadata.name, metadata.class_names) == ("stock", CLASSES)
    assert (metadata.mean, metadata.std) == ((0.0,), (1.0,))
    found = LiteRTModel(path).predict(images[0]).argmax(-1)
    assert found.tolist() == images[1].tolist()


def test_a_file_of_another_range_is_refused(model, images, tmp_path):
    """Otherwise the result would be correct by chance."""
    wrong = with_pixel_range(model.layers[-1], "0..1")
    with pytest.raises(ValueError, match="outside the limits: min_agreement"):
        publish(
            lambda path: export_tflite(wrong, path),
            tmp_path / "wrong.tflite",
            model,
            "a TFLite file",
            images=images[0],
        )
    assert not (tmp_path / "wrong.tflite").exists()


def test_without_a_range_it_says_what_to_do(images, tmp_path):
    with pytest.raises(
        ValueError, match="`with_pixel_range` \\(`--pixel_range`"
    ):
        export_tflite(stock_model(), tmp_path / "x.tflite")


def test_onnx_files(model, images, tmp_path):
    path = tmp_path / "stock.onnx"
    report = publish(
        lambda unfinished: export_onnx(model, unfinished),
        path,
        model,
        "an ONNX file",
        images=images[0],
    )
    assert report.passed


def test_the_model_is_saved_and_classifies(model, images, tmp_path):
    model.save(tmp_path / "stock.keras")
    again = load_model(tmp_path / "stock.keras")
    assert has_pixel_range(again)
    found = load_classifier(tmp_path / "stock.keras").predict(
        np.float32(images[0])
    )
    assert found.argmax(-1).tolist() == images[1].tolist()


@pytest.mark.slow
def test_the_script_takes_it(model, tmp_path):
    inner = model.layers[-1]
    inner.save(tmp_path / "stock.keras")
    write_images(tmp_path / "images" / "test", CLASSES, 12, 32)
    result = run_script(
        "export/to_tflite.py",
        *(f"--model={tmp_path / 'stock.keras'}", "--pixel_range=-1..1"),
        *(f"--output={tmp_path}", f"--images={tmp_path / 'images'}"),
        *("--split=test", "--quantization=float16"),
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "stock_float16.tflite.json").exists()


@pytest.mark.large
@pytest.mark.parametrize("quantization", ["float16", "dynamic", "int8"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("MobileNetV3Small", {"include_preprocessing": False}),
        ("MobileNetV2", {"alpha": 0.35}),
    ],
)
def test_networks_of_keras_applications(name, options, quantization, tmp_path):
    keras.utils.set_random_seed(0)
    build = getattr(keras.applications, name)
    inner = build((64, 64, 3), weights=None, classes=5, **options)
    model = with_pixel_range(inner, "-1..1")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 64, 64, 3)).astype(np.uint8)
    calibration = images[:20] if quantization == "int8" else None
    path = tmp_path / "model.tflite"
    # With random weights, all classes are the same, so compare numbers.
    report = publish(
        lambda unfinished: export_tflite(
            model,
            unfinished,
            quantization=quantization,
            calibration_images=calibration,
        ),
        path,
        model,
        "a TFLite file",
        images=images,
        limits={"min_agreement": None, "max_total_variation": 0.02},
    )
    assert report.passed
