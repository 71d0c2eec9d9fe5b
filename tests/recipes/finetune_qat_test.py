"""Tests the recipe for quantization-aware training."""

import importlib.util
import json
import re
import warnings

import keras
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from convmixer_tf.data import open_dataset
from convmixer_tf.data import read_images
from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import read_metadata
from convmixer_tf.export.qat import tuning
from convmixer_tf.models import ConvMixer
from convmixer_tf.models import save_model
from convmixer_tf.models.additions import read_crop_fraction
from convmixer_tf.models.additions import read_orientation
from tests.helpers import oriented
from tests.helpers import randomize
from tests.helpers import read_images_once
from tests.helpers import run_script
from tests.helpers import tell_apart
from tests.helpers import write_images

CLASSES = ("blue", "green", "red")
RECIPE = "recipes/finetune_qat.py"

needs_extra = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_model_optimization") is None,
    reason="needs tensorflow-model-optimization",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Has `data/train`, `data/test`, `random.keras` and `model.keras`."""
    folder = tmp_path_factory.mktemp("finetune_qat")
    write_images(folder / "data" / "train", CLASSES, 14, 16)
    write_images(folder / "data" / "test", CLASSES, 4, 18)
    model = ConvMixer(8, 1, 3, 4, input_shape=(16, 16, 3), classes=3)
    save_model(randomize(model), folder / "random.keras", CLASSES)
    dataset = open_dataset(str(folder / "data"), "test")
    tell_apart(model, *read_images(dataset, 16))
    save_model(model, folder / "model.keras", CLASSES)
    return folder


def command(folder, model="model.keras", data="data"):
    return (
        f"--model={folder / model}",
        f"--data={folder / data}",
        "--eval_split=test",
        "--calibration_images=12",
        "--batch_size=8",
        "--threads=1",
    )


@pytest.mark.peer
@needs_extra
def test_it_ends_in_a_file_that_is_verified(folder, tmp_path):
    arguments = (*command(folder), f"--output={tmp_path}")
    result = run_script(RECIPE, *arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "30 images to train on, 12 to calibrate, 12 to test" in result.stderr
    assert "Update 3/3: loss" in result.stderr
    path = tmp_path / "quantize_int8.tflite"
    assert read_metadata(path).class_names == CLASSES
    report = json.loads((tmp_path / "quantize_int8.tflite.json").read_text())
    assert report["passed"]
    assert report["labeled"] == 12
    card = (tmp_path / "quantize_int8.tflite.md").read_text()
    assert f"| top-1 accuracy | {report['accuracy']['artifact']:.2%}, " in card
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["images"] == {"train": 30, "calibration": 12, "test": 12}
    assert results["found"]["parity"] < 1e-6
    *_, row = results["results"]
    assert row["bytes"] == path.stat().st_size
    assert row["top1"] == report["accuracy"]["artifact"]
    assert f"| file tuned | {row['bytes'] / 1e3:.0f} |" in result.stdout
    images = np.zeros((1, 16, 16, 3))
    assert LiteRTModel(path).predict(images).shape == (1, 3)
    again = run_script(RECIPE, *arguments)
    assert again.returncode == 1
    assert "exists. To replace it, pass `--overwrite`" in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.peer
@needs_extra
def test_a_file_outside_the_limits_does_not_appear(folder, tmp_path):
    """The classes of a random network are unstable in 4 bits."""
    # Enough images for the agreement's interval to be outside.
    write_images(tmp_path / "data" / "train", CLASSES, 14, 16)
    write_images(tmp_path / "data" / "test", CLASSES, 60, 18)
    arguments = (
        *command(folder, "random.keras", tmp_path / "data"),
        f"--output={tmp_path / 'run'}",
    )
    arguments = (*arguments, "--quantization=int4")
    result = run_script(RECIPE, *arguments, "--learning_rate=1e-3")
    assert result.returncode == 1
    assert "is outside the limits: max_accuracy_loss" in result.stderr
    assert not (tmp_path / "run" / "quantize_int4.tflite").exists()
    report = tmp_path / "run" / "quantize_int4.tflite.failed.json"
    assert not json.loads(report.read_text())["passed"]


@pytest.fixture(scope="module")
def known():
    """Images that were read."""
    return {}


@pytest.fixture
def recipe(load_recipe, monkeypatch, known):
    """The recipe, up to the start of the worker process."""
    recipe = load_recipe("finetune_qat")
    read_images_once(monkeypatch, known)
    monkeypatch.setattr(tuning, "check_installed", lambda: None)
    monkeypatch.setattr(tuning, "_run_worker", lambda folder: 1 / 0)
    return recipe


@pytest.fixture(scope="module")
def places(folder):
    """Has invalid models and invalid data."""
    write_images(folder / "other" / "train", ("cat", "dog", "red"), 4, 16)
    write_images(folder / "other" / "test", ("cat", "dog", "red"), 4, 16)
    write_images(folder / "few" / "train", CLASSES, 14, 16)
    write_images(folder / "few" / "test", CLASSES, 3, 17)
    (folder / "file").write_text("no folder")
    lines = "path,label,split\nfile,a;b,train\nfile2,a,test\n"
    (folder / "several.csv").write_text(lines)
    (folder / "file2").touch()
    square = (16, 16, 3)
    pooled = keras.layers.GlobalAveragePooling2D()
    dense = keras.layers.Dense(3, "softmax")
    integers = ConvMixer(4, 1, 3, 4, input_shape=square, classes=3)
    with warnings.catch_warnings(action="ignore"):
        integers.quantize("int8")
    for name, model in (
        ("other", keras.Sequential([keras.Input(square), pooled, dense])),
        ("integers", integers),
        ("free", ConvMixer(4, 1, 3, 4, input_shape=(None, None, 3), classes=3)),
        ("gray", ConvMixer(4, 1, 3, 4, input_shape=(16, 16, 1), classes=3)),
        (
            "raw",
            ConvMixer(
                4,
                1,
                3,
                4,
                input_shape=square,
                classes=3,
                include_preprocessing=False,
            ),
        ),
    ):
        save_model(model, folder / f"{name}.keras", CLASSES)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--calibration_images=42",
            "at least 42 images for --calibration_images and 8 for one batch "
            "to train on. Received: 42 images in 'train' that are not in "
            "'test'. Pass a smaller --calibration_images or --batch_size",
        ),
        ("--calibration_images=144", "at least 144 images for --calibration"),
        ("--batch_size=31", "12 images for .* 31 for one batch .*Received: 42"),
        ("--train_images=7", "Received: 19 .* a larger --train_images"),
        ("--eval_split=train", "Received: 0 images in 'train' that are not in"),
        ("--eval_split=validation", "(`--eval_split`)"),
        ("--train_split=nowhere", "(`--train_split`)"),
        ("--data={}/few", "--eval_split must have at least 10 images. Recei"),
        ("--data={}/several.csv", "one label an image. Received: the table"),
        ("--data={}/other", "does not know the classes cat, dog of the data"),
        ("--model={}/none.keras", "must be the path of a .keras"),
        (
            "--model={}/file",
            "is not a Keras, safetensors or PyTorch weights file",
        ),
        ("--model={}/free.keras", "must take square images of a static size"),
        ("--model={}/gray.keras", "must take square images of a static size"),
        ("--model={}/other.keras", "with the layers of a ConvMixer"),
        ("--model={}/integers.keras", "must not be quantized and"),
        ("--model={}/raw.keras", "include_preprocessing=True"),
        ("--learning_rate=2", "`learning_rate` must be a number between 0"),
        ("--output={}/file", "--output must be a folder. Received: the file"),
        ("--quantization=int7", "value should be one of <int8|int4>"),
        ("--scheme=dynamic", "value should be one of <int8|int4>"),
        ("--method=prune", "value should be one of <quantize|float>"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    places, tmp_path, recipe, line, message
):
    message = re.escape(message).replace(r"\.\*", ".*")
    output = f"--output={tmp_path / 'run'}"
    with flagsaver.flagsaver():
        errors = (ValueError, OSError, flags.Error)
        with pytest.raises(errors, match=message):
            recipe.main(
                flags.FLAGS(
                    [RECIPE, *command(places), output, line.format(places)]
                )
            )
    assert list(tmp_path.iterdir()) == []


def test_the_old_name_of_the_quantization(folder, tmp_path, recipe, caplog):
    line = [RECIPE, *command(folder), f"--output={tmp_path}", "--scheme=int4"]
    with flagsaver.flagsaver(), pytest.raises(ZeroDivisionError):
        recipe.main(flags.FLAGS(line))
    assert "--scheme is deprecated. Use --quantization." in caplog.text
    assert (tmp_path / "quantize_int4" / "settings.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "orientation"), [(None, "stored"), (0.5, "exif")]
)
def test_images_are_read_as_the_model_says(
    load_recipe, tmp_path, flag, orientation
):
    write_images(tmp_path / "data" / "train", CLASSES, 10, 20)
    write_images(tmp_path / "data" / "test", CLASSES, 4, 20)
    (tmp_path / "data" / "test" / "red" / "turned.jpg").write_bytes(oriented(6))
    model = ConvMixer(8, 1, 3, 4, input_shape=(16, 16, 3), classes=3)
    save_model(model, tmp_path / "model.keras", CLASSES, 0.8, orientation)
    tuning_data = load_recipe("tuning_data")
    more = [f"--crop_fraction={flag}"] if flag else []
    line = ["tuning_data", *command(tmp_path), *more]
    flags.FLAGS(line, known_only=True)
    dataset = open_dataset(str(tmp_path / "data"), "test")
    expected, _ = read_images(
        dataset, 16, crop_fraction=flag or 0.8, orientation=orientation
    )
    found = tuning_data.read()
    np.testing.assert_array_equal(found.test[0], expected)
    found.export(tmp_path / "model.tflite", model, "int4")
    assert read_crop_fraction(tmp_path / "model.tflite") == (flag or 0.8)
    assert read_orientation(tmp_path / "model.tflite") == orientation
