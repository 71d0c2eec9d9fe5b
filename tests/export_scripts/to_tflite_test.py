"""export/to_tflite.py, as a user runs it."""

import json

import pytest

from convmixer_tf.data import open_dataset
from convmixer_tf.data import read_images
from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import read_metadata
from convmixer_tf.models import ConvMixer
from convmixer_tf.training import save_model
from tests.helpers import randomize
from tests.helpers import run_script
from tests.helpers import write_images

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("to_tflite")
    write_images(folder / "images" / "test", CLASSES, 6, 32)
    write_images(folder / "calibration" / "train", CLASSES, 6, 48)
    model = ConvMixer(
        16, 2, 7, 4, input_shape=(16, 16, 3), classes=3, name="toy"
    )
    save_model(randomize(model), folder / "model.keras", CLASSES)
    return folder


def flags(folder, output, *more):
    return (
        f"--model={folder / 'model.keras'}",
        f"--output={output}",
        f"--images={folder / 'images'}",
        *("--split=test", "--latency_rounds=1", *more),
    )


@pytest.mark.large
def test_several_formats_at_once(folder):
    output = folder / "new"
    result = run_script(
        "export/to_tflite.py",
        *flags(folder, output, f"--calibration={folder / 'calibration'}"),
        *("--scheme=dynamic", "--scheme=int8", "--description=Three colours."),
        *("--min_agreement=0", "--output_dtype=uint8"),
        "--max_mean_difference=0.1",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "| dynamic |" in result.stdout
    assert "| int8 |" in result.stdout
    images, _ = read_images(open_dataset(str(folder / "images"), "test"), 16)
    for scheme, dtype in (("dynamic", "float32"), ("int8", "uint8")):
        path = output / f"toy_{scheme}.tflite"
        report = json.loads((output / f"{path.name}.json").read_text())
        assert report["passed"]
        assert (report["scheme"], report["images"]) == (scheme, 18)
        assert report["outputs"][0]["dtype"] == dtype
        assert LiteRTModel(path).predict(images).shape == (18, 3)
        metadata = read_metadata(path)
        assert metadata.class_names == CLASSES
        assert metadata.name == "toy"
        assert metadata.description == "Three colours."


def test_calibration_images_are_not_those_to_compare_on(folder):
    output = folder / "none"
    result = run_script(
        "export/to_tflite.py",
        *flags(folder, output, f"--calibration={folder / 'images'}"),
        *("--calibration_split=test", "--scheme=int8"),
    )
    assert result.returncode == 1
    assert "of the 18 images of --calibration are among" in result.stderr
    assert list(output.iterdir()) == []


@pytest.mark.large
def test_int8_needs_calibration_images(folder):
    result = run_script(
        "export/to_tflite.py",
        *flags(folder, folder / "none", "--scheme=int8"),
    )
    assert result.returncode == 1
    assert "int8 needs --calibration" in result.stderr
