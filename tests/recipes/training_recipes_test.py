"""Tests the training recipes on synthetic images.

They run in this process. tests/prose runs each in a separate process.
"""

import csv
import importlib
import json

import keras
import numpy as np
import pytest

from convmixer_tf import ConvMixer
from convmixer_tf.export import export_tflite
from convmixer_tf.export.metadata import TFLiteMetadata
from convmixer_tf.export.metadata import write_metadata
from convmixer_tf.layers import CovarianceInitializer
from convmixer_tf.models import save_model
from convmixer_tf.models.additions import read_class_names
from convmixer_tf.models.normalization import statistics_in
from tests.helpers import call_script
from tests.recipes.conftest import CLASSES

pytestmark = pytest.mark.slow


def run(recipe, *arguments):
    return call_script(f"recipes/{recipe}", *arguments)


def succeed(recipe, *arguments):
    result = run(recipe, *arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    return result


TINY = ("--dim=8", "--depth=1", "--batch_size=8", "--log_every=1")


@pytest.fixture(scope="module")
def cifar_run(images, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "output"
    with pytest.MonkeyPatch.context() as patch:
        # Its 15 operations take longer to trace than everything else.
        batches = importlib.import_module("convmixer_tf.data.training")
        patch.setattr(batches, "rand_augment_with", lambda draws, x, how: x)
        result = succeed(
            "train_cifar10.py",
            *(f"--data={images}", f"--output={output}", "--epochs=2"),
            *(*TINY, "--notensorboard"),
        )
    assert "Step 6/6: loss" in result.stderr
    assert "Top-1" in result.stderr
    assert "functional_saver" not in result.stderr
    return output


def test_cifar10_ends_in_a_model_and_its_figures(cifar_run):
    summary = json.loads((cifar_run / "summary.json").read_text())
    assert summary["last"]["step"] == 6
    config = json.loads((cifar_run / "config.json").read_text())
    assert config["decay_all"]
    assert config["clip_norm"] is None
    assert (config["learning_rate"], config["weight_decay"]) == (0.05, 0.005)
    assert config["augmentation"]["erasing"] is None
    with open(cifar_run / "log.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    assert read_class_names(cifar_run / "model.keras") == CLASSES
    assert (cifar_run / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_agrees_with_the_run(cifar_run, images, tmp_path):
    result = succeed(
        "evaluate.py",
        *(f"--model={cifar_run / 'model.keras'}", f"--data={images}"),
        *("--split=test", "--batch_size=4", f"--output={tmp_path / 'new'}"),
    )
    assert result.stdout.startswith("9 images: top-1 ")
    assert "with 32 pixels of the whole shorter side\n" in result.stdout
    assert "top-5" not in result.stdout
    scores = json.loads((tmp_path / "new" / "scores.json").read_text())
    last = json.loads((cifar_run / "summary.json").read_text())["last"]
    assert scores["top1"] == pytest.approx(last["top1"])
    assert scores["top5"] == 1
    assert scores["loss"] == pytest.approx(last["loss"], rel=1e-3)
    assert list(scores["per_class"]) == list(CLASSES)
    mean = np.mean(list(scores["per_class"].values()))
    assert scores["top1"] == pytest.approx(mean)
    picture = (tmp_path / "new" / "confusion.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


def test_the_fast_preset_with_a_teacher(cifar_run, images, tmp_path):
    output = tmp_path / "student"
    succeed(
        "train_cifar10.py",
        *(f"--data={images}", "--preset=fast", f"--teacher={cifar_run}"),
        *(f"--output={output}", "--held_out=6", "--epochs=2"),
        *(*TINY, "--notensorboard", "--learning_rate=0.005"),
    )
    config = json.loads((output / "config.json").read_text())
    assert (config["optimizer"], config["train_images"]) == ("muon", 18)
    rates = config["learning_rate"], config["muon_learning_rate"]
    assert rates == (0.005, 0.01)
    assert config["augmentation"]["alternate_flips"]
    assert config["teacher"] == str(cifar_run)
    model = keras.saving.load_model(output / "model.keras")
    initializer = model.get_layer("block_0").depthwise_initializer
    assert isinstance(initializer, CovarianceInitializer)
    summary = json.loads((output / "summary.json").read_text())
    assert summary["last"]["step"] == 4
    succeed(
        "evaluate.py",
        *(f"--model={output}", f"--data={images}", "--split=test", "--flip"),
        f"--output={tmp_path}",
    )
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["flip"]
    assert scores["images"] == 9


@pytest.mark.parametrize("kind", ["SavedModel", "TFLite"])
def test_evaluate_takes_what_was_exported(cifar_run, images, tmp_path, kind):
    model = keras.saving.load_model(cifar_run / "model.keras")
    path = tmp_path / "exported"
    if kind == "TFLite":  # Its file has the crop and the orientation.
        path, crop = path.with_suffix(".tflite"), []
        export_tflite(model, path, crop_fraction=1.0)
    else:
        model.export(path, verbose=False)
        crop = ["--crop_fraction=1"]
    succeed(
        "evaluate.py",
        *(f"--model={path}", f"--data={images}", "--split=test"),
        *(*crop, f"--output={tmp_path}"),
    )
    scores = json.loads((tmp_path / "scores.json").read_text())
    last = json.loads((cifar_run / "summary.json").read_text())["last"]
    assert scores["images"] == 9
    assert scores["loss"] == pytest.approx(last["loss"], rel=1e-3)


def test_wrong_flags_end_it_at_once(images, tmp_path):
    output = f"--output={tmp_path / 'run'}"
    for recipe, flags, message in (
        ("train_imagenet.py", ["--data=/no/where"], "tensorflow-datasets"),
        (
            "train_cifar10.py",
            [f"--data={images}", "--batch_size=25"],
            "`batch_size` must be at most 24",
        ),
    ):
        result = run(recipe, *flags, output)
        assert result.returncode != 0
        assert message in result.stderr + result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.large
def test_imagenet_goes_through_kill_resume_and_evaluate(images, tmp_path):
    """The largest patch, on images of 2 x 2 patches."""
    output = tmp_path / "run"
    arguments = (
        *(f"--data={images}", "--eval_split=test", "--model=1024_20"),
        *("--image_size=28", "--batch_size=8", "--epochs=2", "--keep=1"),
        *("--notensorboard", "--log_every=3", f"--output={output}"),
        *("--deterministic", "--steps_per_call=3"),
    )
    succeed("train_imagenet.py", *arguments)
    summary = json.loads((output / "summary.json").read_text())
    assert summary["last"]["step"] == 6
    assert summary["parameters"] == 24_467_432 - 997 * 1025
    config = json.loads((output / "config.json").read_text())
    assert config["learning_rate"] == pytest.approx(0.01 * 8 / 640)
    assert (config["epsilon"], config["weight_decay"]) == (1e-3, 2e-5)
    assert config["augmentation"]["mixing"]["cutmix_alpha"] == 0.5
    # As if the run was killed before the last checkpoint.
    (output / "summary.json").unlink()
    result = succeed("train_imagenet.py", *arguments)
    assert "Resuming from step 6" in result.stderr
    succeed(
        "evaluate.py",
        *(f"--model={output / 'model.keras'}", f"--data={images}"),
        *("--split=test", "--image_size=28", f"--output={tmp_path}"),
    )
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["top1"] == pytest.approx(summary["last"]["top1"])


@pytest.mark.large
def test_finetune_starts_from_weights_and_from_a_run(
    cifar_run, images, tmp_path
):
    """At 32 pixels with its own normalization, for other classes."""
    folder = tmp_path / "images"
    for split in ("train", "test"):
        for old, new in (("blue", "water"), ("red", "fire")):
            target = folder / split / new
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(images / split / old)
    arguments = (
        *(f"--model={cifar_run / 'model.keras'}", f"--data={folder}"),
        *("--frozen", f"--output={tmp_path / 'run'}"),
    )
    succeed("finetune.py", *arguments)
    path = tmp_path / "run" / "model.keras"
    assert read_class_names(path) == ("fire", "water")
    old, new = (
        keras.saving.load_model(file)
        for file in (cifar_run / "model.keras", path)
    )
    assert new.input_shape == old.input_shape == (None, 32, 32, 3)
    assert new.output_shape == (None, 2)
    statistics = [
        statistics_in(m.get_layer("normalization").get_config())
        for m in (old, new)
    ]
    np.testing.assert_allclose(*statistics, rtol=1e-6)
    kernels = [m.get_layer("block_0").depthwise.kernel for m in (old, new)]
    np.testing.assert_array_equal(*kernels)


@pytest.mark.parametrize("kind", ["keras", "tflite"])
def test_evaluate_says_which_classes_it_does_not_know(images, tmp_path, kind):
    path = tmp_path / f"model.{kind}"
    model = ConvMixer(8, 1, 3, 4, input_shape=(32, 32, 3), classes=3)
    names = ("blue", "green", "pink")
    if kind == "keras":
        save_model(model, path, names)
    else:
        export_tflite(model, path)
        write_metadata(path, TFLiteMetadata("Toy", class_names=names))
    result = run(
        "evaluate.py",
        *(f"--model={path}", f"--data={images}", "--split=test"),
        f"--output={tmp_path / 'new'}",
    )
    assert result.returncode != 0
    assert "does not know the classes red of the data" in result.stderr
