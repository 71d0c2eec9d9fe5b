"""export/verify.py and what the export scripts share, as a user runs them."""

import json
import os
import re

import keras
import numpy as np
import pytest

from convmixer_tf.data import open_dataset
from convmixer_tf.data import read_images
from convmixer_tf.export import export_tflite
from convmixer_tf.models import ConvMixer
from convmixer_tf.training import save_model
from tests.helpers import ROOT
from tests.helpers import randomize
from tests.helpers import run_python
from tests.helpers import run_script
from tests.helpers import write_images

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images, a model that gives them all three classes, and its TFLite."""
    folder = tmp_path_factory.mktemp("verify")
    write_images(folder / "images" / "test", CLASSES, 12, 32)
    dataset = open_dataset(str(folder / "images"), "test")
    images, labels = read_images(dataset, 16)
    shape = (16, 16, 3)
    model = randomize(ConvMixer(16, 1, 3, 4, input_shape=shape, classes=3))
    body = keras.Model(model.inputs, model.get_layer("avg_pool").output)
    features = body.predict(images, verbose=0)
    # The head that tells the classes' means apart.
    kernel = np.stack([features[labels == k].mean(0) for k in range(3)], 1)
    kernel -= kernel.mean(axis=1, keepdims=True)
    bias = -features.mean(axis=0) @ kernel
    scale = 3 / np.std(features @ kernel + bias)
    model.get_layer("predictions").set_weights([kernel * scale, bias * scale])
    save_model(model, folder / "model.keras", CLASSES)
    export_tflite(model, folder / "model.tflite")
    return folder


def flags(folder, *more):
    images = f"--images={folder / 'images'}"
    return (images, "--split=test", "--latency_rounds=1", *more)


@pytest.mark.large
def test_a_right_file_passes(folder):
    output = folder / "report.json"
    result = run_script(
        "export/verify.py",
        *(folder / "model.keras", folder / "model.tflite"),
        *flags(folder, f"--output={output}", "--limit=12"),
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "| verdict | within limits |" in result.stdout
    report = json.loads(output.read_text())
    assert report["passed"]
    assert report["agreement"] == 1
    assert (report["images"], report["labelled"]) == (12, 12)
    assert report["classes_seen"] == 3
    assert report["accuracy"]["model"] == report["accuracy"]["artefact"] > 0.6


def test_a_wrong_file_does_not_and_the_limit_is_named(folder):
    other = ConvMixer(16, 1, 3, 4, input_shape=(16, 16, 3), classes=3)
    export_tflite(randomize(other, seed=1), folder / "other.tflite")
    result = run_script(
        "export/verify.py",
        *(folder / "model.keras", folder / "other.tflite"),
        *flags(folder, "--max_difference=1"),
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Outside the limits: min_agreement: agreement 0.")
    assert "max_mean_difference" in last
    assert "max_difference" not in last


@pytest.mark.large
def test_an_export_that_passes(folder, tmp_path):
    path = tmp_path / "model.onnx"
    model = f"--model={folder / 'model.keras'}"
    result = run_script(
        "export/to_onnx.py", model, f"--output={path}", *flags(folder)
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert path.stat().st_size > 1000
    report = json.loads((tmp_path / "model.onnx.json").read_text())
    assert report["passed"]
    assert report["artefact"] == str(path)
    assert len(list(tmp_path.iterdir())) == 2


def test_an_export_that_fails_is_not_there(folder, tmp_path):
    """No float32 file is as equal as that: the sums have other orders."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"precious")
    result = run_script(
        "export/to_onnx.py",
        *(f"--model={folder / 'model.keras'}", f"--output={path}"),
        *flags(folder, "--max_mean_difference=0", "--overwrite"),
    )
    assert result.returncode == 1
    assert "was not written" in result.stderr.splitlines()[-1]
    assert "max_mean_difference: mean difference" in result.stderr
    assert path.read_bytes() == b"precious"
    report = json.loads((tmp_path / "model.onnx.failed.json").read_text())
    assert set(report["broken"]) == {"max_mean_difference"}
    assert len(list(tmp_path.iterdir())) == 2


# Runs a line with each set of flags, in one process; prints the errors.
_DRIVER = """
import json, sys
import export_flags
from absl import flags
for arguments in json.loads(sys.argv[1]):
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    flags.FLAGS(["script", *arguments])
    try:
        model, names = export_flags.load_model()
        images, labels = export_flags.load_images(model, names)
        print(len(images), *labels)
    except (OSError, ValueError) as error:
        print(type(error).__name__, str(error).replace(chr(10), " "))
"""


def test_flags(folder, tmp_path):
    ours = f"--model={folder / 'model.keras'}"
    images = f"--images={folder / 'images'}"
    flat = f"--images={folder / 'images' / 'test' / 'red'}"
    (tmp_path / "two.txt").write_text("blue\nred\n")
    (tmp_path / "pink.txt").write_text("blue\ngreen\npink\n")
    (tmp_path / "swapped.txt").write_text("red\ngreen\nblue\n")
    (tmp_path / "broken.keras").write_text("not a model")
    (tmp_path / "empty").mkdir()
    cases = {
        (ours, images, "--split=test", "--limit=12"): "12 0 0 0 0 1 .* 2 2$",
        (ours, images, "--split=test", "--limit=9"): "ValueError Verifying "
        "needs at least 10 images. Received: 9",
        (
            *(ours, images, "--split=test", "--limit=12"),
            f"--labels={tmp_path / 'swapped.txt'}",
        ): "12 2 2 2 2 1 .* 0 0$",
        (ours, flat): "12( -1){12}$",
        ("--model=512_20", images): "FileNotFoundError The model must be a .k",
        (
            f"--model={tmp_path / 'broken.keras'}",
            images,
        ): "ValueError `.*broken.keras` is not a whole Keras model",
        (
            *(ours, images),
            f"--labels={tmp_path / 'two.txt'}",
        ): "ValueError The model has 3 outputs, and there are names for 2",
        (
            *(ours, images, "--split=test"),
            f"--labels={tmp_path / 'pink.txt'}",
        ): "ValueError The model does not know the classes red of the data",
        (ours,): "ValueError Verifying needs real images: pass --images",
        (ours, images): "ValueError Argument `split` must name a folder",
        (ours, f"--images={tmp_path / 'empty'}"): "ValueError Argument `split`",
        (ours, images, "--image_size=32"): "ValueError The model takes images "
        "of 16 pixels. Received: --image_size=32",
    }
    printed = run_python(
        _DRIVER,
        json.dumps(list(cases)),
        PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "export")]),
    )
    for line, pattern in zip(printed.splitlines(), cases.values(), strict=True):
        assert re.match(pattern, line), (pattern, line)
