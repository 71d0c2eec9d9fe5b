"""Fine-tuning for small files, as a user runs it."""

import importlib.util
import json

import keras
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from convmixer_tf.data import open_dataset
from convmixer_tf.data import read_images
from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import read_metadata
from convmixer_tf.models import ConvMixer
from convmixer_tf.training import save_model
from tests.helpers import randomize
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
    assert report["labelled"] == 12
    card = (tmp_path / "quantize_int8.tflite.md").read_text()
    assert f"| top-1 | {report['accuracy']['artefact']:.2%} |" in card
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["images"] == {"train": 30, "calibration": 12, "test": 12}
    assert results["found"]["parity"] < 1e-6
    *_, row = results["results"]
    assert row["bytes"] == path.stat().st_size
    assert row["gzip"] < row["bytes"]
    assert row["top1"] == report["accuracy"]["artefact"]
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
    """A network of random weights wavers between classes in 4 bits."""
    arguments = (*command(folder, "random.keras"), f"--output={tmp_path}")
    arguments = (*arguments, "--scheme=int4")
    result = run_script(RECIPE, *arguments, "--learning_rate=1e-3")
    assert result.returncode == 1
    assert "outside the limits: agreement 0." in result.stderr
    assert not (tmp_path / "quantize_int4.tflite").exists()
    report = tmp_path / "quantize_int4.tflite.failed.json"
    assert not json.loads(report.read_text())["passed"]


def test_another_data_set_and_another_size(
    folder, tmp_path, load_recipe, monkeypatch
):
    """No extra is needed to find that out, and nothing is written."""
    recipe = load_recipe("finetune_qat")
    monkeypatch.setattr(recipe.tuning_data, "begin", lambda argv: None)
    write_images(folder / "other" / "train", ("cat", "dog", "red"), 4, 16)
    write_images(folder / "other" / "test", ("cat", "dog", "red"), 4, 16)
    free = ConvMixer(4, 1, 3, 4, input_shape=(None, None, 3), classes=3)
    save_model(free, folder / "free.keras", CLASSES)
    for arguments, message in (
        ({"data": "other"}, "does not know the classes cat, dog of the data"),
        ({"model": "free.keras"}, "must take square images of a static size"),
        ({"model": "none.keras"}, "There is no file"),
    ):
        line = (RECIPE, *command(folder, **arguments), f"--output={tmp_path}")
        with flagsaver.flagsaver():
            argv = flags.FLAGS(line)
            with pytest.raises((ValueError, OSError), match=message):
                recipe.main(argv)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.peer
@needs_extra
def test_another_network(folder, tmp_path):
    other = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, "softmax"),
        ]
    )
    save_model(other, folder / "other.keras", CLASSES)
    arguments = command(folder, model="other.keras")
    result = run_script(RECIPE, *arguments, f"--output={tmp_path}")
    assert result.returncode == 1
    assert "must be what `ConvMixer(...)` returns" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", [None, 0.5])
def test_images_are_cut_as_the_model_says(load_recipe, tmp_path, flag):
    write_images(tmp_path / "data" / "train", CLASSES, 10, 20)
    write_images(tmp_path / "data" / "test", CLASSES, 4, 20)
    model = ConvMixer(8, 1, 3, 4, input_shape=(16, 16, 3), classes=3)
    save_model(model, tmp_path / "model.keras", CLASSES, 0.8)
    tuning_data = load_recipe("tuning_data")
    more = [f"--crop_fraction={flag}"] if flag else []
    line = ["tuning_data", *command(tmp_path), *more]
    flags.FLAGS(line, known_only=True)
    dataset = open_dataset(str(tmp_path / "data"), "test")
    expected, _ = read_images(dataset, 16, crop_fraction=flag or 0.8)
    np.testing.assert_array_equal(tuning_data.read().test[0], expected)
