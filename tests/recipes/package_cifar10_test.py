"""Tests packaging the weights of a run."""

import hashlib
import json
import re
import shutil

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from convmixer_tf.models import ConvMixer
from convmixer_tf.models import ConvMixer256_8
from convmixer_tf.models import save_model
from convmixer_tf.preprocessing import CIFAR10_CLASSES
from convmixer_tf.preprocessing import CIFAR10_MEAN
from convmixer_tf.preprocessing import CIFAR10_STD
from convmixer_tf.weights import packaged
from tests.helpers import randomize

ENVIRONMENT = {
    "command": ["/a/train_cifar10.py", "--data", "/home/me/cifar", "--seed=7"],
    "platform": "my machine",
    "tensorflow": "2.21.0",
    "keras": "3.15.1",
}
SUMMARY = {"precision": "mixed_bfloat16", "seconds": 5400.0}
LOG = "epoch,top1,seconds\n24,0.8,3600.0\n25,0.9,1800.0\n"
CONFIG = {
    "epochs": 25,
    "batch_size": 512,
    "learning_rate": 0.05,
    "weight_decay": 0.005,
    "seed": 7,
}


@pytest.fixture(scope="module")
def model():
    return randomize(ConvMixer256_8(weights=None))


@pytest.fixture
def finished(model, tmp_path):
    """A run folder like from `train_cifar10.py`."""
    run = tmp_path / "run"
    run.mkdir()
    save_model(model, run / "model.keras", CIFAR10_CLASSES, 1.0)
    for name, content in (
        ("summary", SUMMARY),
        ("config", CONFIG),
        ("environment", ENVIRONMENT),
    ):
        (run / f"{name}.json").write_text(json.dumps(content))
    (run / "log.csv").write_text(LOG)
    return run


@pytest.fixture(scope="module")
def images(model, tmp_path_factory):
    """Two of each class, of which the model recognizes the first."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (20, 32, 32, 3)).astype("uint8")
    best = model.predict(np.float32(noise), verbose=0).argmax(axis=1)
    for number, name in enumerate(CIFAR10_CLASSES):
        (folder / "test" / name).mkdir(parents=True)
        for i in range(2):
            path = folder / "test" / name / f"{i}.png"
            Image.fromarray(noise[2 * number + i]).save(path)
    labels = np.repeat(np.arange(10), 2)
    return folder, float(np.mean(best == labels))


@pytest.fixture
def package(load_recipe, finished, images, tmp_path):
    """Runs the recipe, in this process."""
    recipe = load_recipe("package_cifar10")

    def run(*arguments):
        places = ("output", tmp_path / "packaged"), ("record", tmp_path / "log")
        line = [f"--{name}={path}" for name, path in places]
        line += [f"--data={images[0]}", *arguments, f"--run={finished}"]
        with flagsaver.flagsaver():
            flags.FLAGS(["package_cifar10", "--verbosity=-1", *line])
            recipe.main([])
        return tmp_path / "packaged", tmp_path / "log"

    return run


@pytest.mark.slow
def test_a_finished_run(package, images, model, monkeypatch, capsys):
    folder, record = package("--remark=Not the original images.")
    assert sorted(path.name for path in folder.iterdir()) == [
        "convmixer_256_8.json",
        "convmixer_256_8.md",
        "convmixer_256_8.safetensors",
    ]
    content = (folder / "convmixer_256_8.safetensors").read_bytes()
    facts = json.loads((folder / "convmixer_256_8.json").read_text())
    assert facts["sha256"] == hashlib.sha256(content).hexdigest()
    assert facts["bytes"] == len(content) < 1.25e6
    assert facts["images"] == 20
    assert facts["top1_in_float32"] == pytest.approx(images[1])
    assert facts["top1"] == pytest.approx(
        np.mean([*facts["per_class"].values()])
    )
    assert [run["hours"] for run in facts["training"]] == [1.5]
    card = (folder / "convmixer_256_8.md").read_text()
    for text in (
        f"| top-1 | {facts['top1']:.2%} |",
        "Not the original images.",
        "25 epochs",
        "seed 7",
        "`python recipes/train_cifar10.py --data cifar --seed=7`",
        "1.5 hours with TensorFlow 2.21.0 and Keras 3.15.1",
    ):
        assert text in card
    assert f"top-1 {facts['top1']:.2%}" in capsys.readouterr().out

    monkeypatch.setattr(packaged, "FOLDER", folder)
    loaded = ConvMixer256_8()
    for actual, exact in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_allclose(actual, exact, rtol=1e-3, atol=1e-7)

    environment = json.loads((record / "1" / "environment.json").read_text())
    assert environment["command"][2:] == ["cifar", "--seed=7"]
    assert "platform" not in environment
    assert (record / "1" / "log.csv").read_text() == LOG

    with pytest.raises(FileExistsError, match=r"exists. To replace it, pass"):
        package()


@pytest.mark.slow
def test_a_run_that_started_from_another(package, finished, tmp_path):
    (tmp_path / "packaged").mkdir()
    card = tmp_path / "packaged" / "convmixer_256_8.md"
    card.write_text("of another run")
    first = finished.with_name("first")
    shutil.copytree(finished, first)
    start = {"epochs": 12, "weights": str(first / "model.keras")}
    (finished / "config.json").write_text(json.dumps({**CONFIG, **start}))
    with pytest.raises(ValueError, match="started from random weights"):
        package()
    _, record = package(f"--run={first}", "--overwrite")
    pattern = r"\n1\. .*\n *25 epochs .*\n.*\n2\. .*\n *12 "
    assert re.search(pattern, card.read_text())
    config = json.loads((record / "2" / "config.json").read_text())
    assert config == {**CONFIG, **start, "weights": "first/model.keras"}
    assert (record / "1" / "log.csv").exists()


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--weights", "--weights"),
        ("/home/me/run/model.keras", "run/model.keras"),
        ("--weights=/home/me/run/model.keras", "--weights=run/model.keras"),
        ("--data=/home/me/cifar", "--data=cifar"),
        ("runs/cifar10", "runs/cifar10"),
    ],
)
def test_whose_machine_it_was_stays_out(load_recipe, argument, expected):
    assert load_recipe("package_cifar10")._shorten(argument) == expected


def test_a_run_that_started_from_elsewhere(package, finished, tmp_path):
    first = finished.with_name("first")
    shutil.copytree(finished, first)
    settings = {**CONFIG, "weights": "convmixer.safetensors"}
    (finished / "config.json").write_text(json.dumps(settings))
    message = r"from .*first/model.keras. .*Received: convmixer.safetensors"
    with pytest.raises(ValueError, match=message):
        package(f"--run={first}")
    assert not (tmp_path / "packaged").exists()


def test_a_run_that_has_not_ended(package, finished, tmp_path):
    (finished / "model.keras").unlink()
    (finished / "summary.json").unlink()
    message = r"is not finished: model.keras, summary.json is missing"
    with pytest.raises(FileNotFoundError, match=message):
        package()
    assert not (tmp_path / "packaged").exists()


@pytest.mark.parametrize(
    ("changed", "names", "message"),
    [
        (
            {"depth": 1},
            CIFAR10_CLASSES,
            "do not fit the model .*. Missing: block_1",
        ),
        (
            {},
            tuple("abcdefghij"),
            "the classes airplane, .*Received: .*a, b, c",
        ),
        (
            {"mean": 0.5},
            CIFAR10_CLASSES,
            "has mean=.0.5, .*Received: mean=.0.491",
        ),
    ],
)
def test_another_model(package, finished, tmp_path, changed, names, message):
    arguments = {
        **{"dim": 256, "depth": 8, "kernel_size": 5, "patch_size": 2},
        **{"mean": CIFAR10_MEAN, "std": CIFAR10_STD},
        **{"input_shape": (32, 32, 3), "classes": 10, **changed},
    }
    save_model(ConvMixer(**arguments), finished / "model.keras", names)
    with pytest.raises(ValueError, match=message):
        package()
    assert not (tmp_path / "packaged").exists()


def test_other_images(package, images, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(images[0] / "test" / "cat", other / "test" / "lion")
    with pytest.raises(ValueError, match=r"have the classes airplane, .*lion"):
        package(f"--data={other}")
    assert not (tmp_path / "packaged").exists()


def test_weights_that_float16_cannot_hold(package, finished, model, tmp_path):
    large = ConvMixer256_8(weights=None)
    large.set_weights(model.get_weights())
    large.get_layer("predictions").bias.assign(np.full(10, 1e5))
    save_model(large, finished / "model.keras", CIFAR10_CLASSES, 1.0)
    with pytest.raises(ValueError, match=r"Too large for float16: head\.bias"):
        package()
    assert not list((tmp_path / "packaged").iterdir())
