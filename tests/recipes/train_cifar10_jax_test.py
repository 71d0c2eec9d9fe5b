"""The recipe for JAX, as a user runs it: TensorFlow can't be imported."""

import csv
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf import ConvMixer
from convmixer_tf.models import load_model
from convmixer_tf.models import read_class_names
from convmixer_tf.models import read_crop_fraction
from convmixer_tf.training import TrainConfig
from convmixer_tf.training.run_log import COLUMNS
from convmixer_tf.training.step import Engine
from tests.helpers import ROOT
from tests.recipes.conftest import CLASSES

pytestmark = pytest.mark.peer

RECIPE = ROOT / "recipes" / "train_cifar10_jax.py"
# 24 images of 3 classes: 3 updates an epoch.
TINY = (
    *("--dim=8", "--depth=1", "--batch_size=8", "--epochs=2", "--patch_size=8"),
    *("--preset=100", "--workers=1", "--log_every=2"),
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of processes that run on JAX and can't import TensorFlow."""
    folder = tmp_path_factory.mktemp("blocked")
    (folder / "tensorflow.py").write_text("raise ImportError('blocked')\n")
    paths = [folder, ROOT, ROOT / "recipes", *filter(None, sys.path)]
    values = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KERAS_")
    }
    return {**values, "PYTHONPATH": os.pathsep.join(map(str, paths))}


def run_code(environment, code, argument):
    """Runs Python on JAX; returns what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", code, argument],
        env={**environment, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def run(environment, images):
    def run(output, *more):
        line = [f"--data={images}", f"--output={output}", *TINY, *more]
        result = subprocess.run(
            [sys.executable, RECIPE, *line],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stderr

    return run


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "output"
    log = run(output)
    assert "Step 6/6" in log
    assert "Top-1" in log
    return output


def read_json(path):
    return json.loads(path.read_text())


def test_it_leaves_what_the_other_recipe_does(finished):
    with open(finished / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["step"]) for row in rows] == [3, 6]
    config = read_json(finished / "config.json")
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert len(fields & set(config)) >= 18
    # 0.05 for batches of 512.
    assert config["learning_rate"] == pytest.approx(0.05 * 8 / 512)
    assert config["recipe"]["erasing"]["mode"] == "const"
    assert config["precision"] == "float32"
    environment = read_json(finished / "environment.json")
    assert environment["backend"] == "jax"
    assert "tensorflow" not in environment
    path = finished / "model.keras"
    assert read_class_names(path) == CLASSES
    assert read_crop_fraction(path) == 1
    assert "a run of 2 epochs" in (finished / "model.md").read_text()


def test_its_figures_are_those_of_its_model(finished, images):
    from convmixer_tf import data
    from convmixer_tf.training import evaluate_function

    batches = data.evaluation_batches(
        data.open_dataset(str(images), "test"), 32, 4, crop_fraction=1.0
    )
    model = load_model(finished / "model.keras")
    scores = evaluate_function(model.predict_on_batch, batches, 3)
    last = read_json(finished / "summary.json")["last"]
    assert last["top1"] == pytest.approx(scores.top1)
    assert last["loss"] == pytest.approx(scores.loss, rel=1e-4)


def weights_of(folder):
    return load_model(folder / "model.keras").get_weights()


def test_a_run_that_was_stopped_ends_the_same(run, finished, tmp_path):
    output = tmp_path / "output"
    log = run(output, "--minutes=0")
    assert "Saved step 1 of 6. The same command goes on" in log
    assert not (output / "model.keras").exists()
    # How many processes make the batches does not matter.
    assert "Goes on from step 1 of 6" in run(output, "--workers=0")
    for left, right in zip(
        weights_of(output), weights_of(finished), strict=True
    ):
        np.testing.assert_array_equal(left, right)
    rows = []
    for folder in (output, finished):
        with open(folder / "log.csv", newline="") as file:
            rows.append(list(csv.DictReader(file)))
    for left, right in zip(*rows, strict=True):
        for name in COLUMNS[:-2]:
            assert left[name] == right[name], name


def test_it_stops_on_a_signal_and_takes_its_workers_along(
    environment, images, tmp_path
):
    line = [f"--data={images}", f"--output={tmp_path}", *TINY, "--epochs=9999"]
    process = subprocess.Popen(
        [sys.executable, RECIPE, *line, "--workers=2"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    checkpoint = tmp_path / "checkpoint.npz"
    end = time.monotonic() + 300
    while not checkpoint.exists() and time.monotonic() < end:
        time.sleep(0.1)
    workers = children_of(process.pid)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, log[-3000:]
    assert "The same command goes on." in log
    assert len(workers) >= 2
    end = time.monotonic() + 30
    while alive := [x for x in workers if pathlib.Path("/proc", x).exists()]:
        assert time.monotonic() < end, alive
        time.sleep(0.1)


def children_of(pid):
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    return [child for task in tasks for child in task.read_text().split()]


TRAINING = """
import json, sys, types
import jax, keras, numpy as np
from convmixer_tf import ConvMixer
from jax_cifar10.engine import Engine
from jax_cifar10.schedule import learning_rate
folder = sys.argv[1]
given = json.load(open(f"{folder}/given.json"))
config = types.SimpleNamespace(**given["config"])
model = ConvMixer(**given["model"])
with np.load(f"{folder}/weights.npz") as file:
    model.set_weights([file[name] for name in file.files])
engine = Engine(model, config)
with np.load(f"{folder}/batches.npz") as file:
    images, labels = file["images"], file["labels"]
losses = [
    float(engine.step(x, y, learning_rate(i, config)))
    for i, (x, y) in enumerate(zip(images, labels))
]
engine.store_weights()
np.savez(f"{folder}/ended.npz", *model.get_weights())
print(json.dumps(losses))
"""


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": 0.01, "clip_norm": 0.5},
        {
            "learning_rate": 0.01,
            "epsilon": 1e-8,
            "weight_decay": 0.1,
            "decay_all": True,
            "clip_norm": None,
        },
    ],
    ids=["as preset 200", "as preset 25"],
)
def test_twenty_steps_equal_tensorflow(
    environment, one_device, tmp_path, settings
):
    config = TrainConfig(epochs=5, steps_per_epoch=4, batch_size=16, **settings)
    arguments = {
        **{"dim": 8, "depth": 2, "kernel_size": 5, "patch_size": 4},
        **{"input_shape": (32, 32, 3), "classes": 10, "weights": None},
        "classifier_activation": None,
    }
    with one_device.scope():
        model = ConvMixer(**arguments)
        engine = Engine(config, model, one_device)
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (2, 16, 32, 32, 3)).astype("float32")
    labels = random.dirichlet([0.3] * 10, (2, 16)).astype("float32")
    images, labels = (
        np.tile(images, [10] + [1] * 4),
        np.tile(labels, [10, 1, 1]),
    )
    np.savez(tmp_path / "weights.npz", *model.get_weights())
    np.savez(tmp_path / "batches.npz", images=images, labels=labels)
    given = {"config": dataclasses.asdict(config), "model": arguments}
    (tmp_path / "given.json").write_text(json.dumps(given))
    expected = [
        float(engine.step([(tf.constant(x), tf.constant(y))])["loss"])
        for x, y in zip(images, labels, strict=True)
    ]
    printed = run_code(environment, TRAINING, tmp_path)
    actual = json.loads(printed)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    with np.load(tmp_path / "ended.npz") as file:
        ended = [file[name] for name in file.files]
    for left, weight in zip(ended, model.weights, strict=True):
        if "moving_" not in weight.path:
            right = keras.ops.convert_to_numpy(weight)
            np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-4)


DRIVER = """
import json, os, sys
from absl import flags
from absl.testing import flagsaver
from jax_cifar10 import command, options
for line in json.loads(sys.argv[1]):
    with flagsaver.flagsaver():
        try:
            command.main(flags.FLAGS(["recipe", *line]))
            print("NO ERROR")
        except (Exception, SystemExit) as error:
            print(type(error).__name__, str(error).replace(chr(10), " "))
"""
WRONG = {
    "--epochs=0": "--epochs=0: 0 is not a positive integer",
    "--batch_size=0": "--batch_size=0: 0 is not a positive",
    "--batch_size=25": "`batch_size` must be at most 24, the number of train",
    "--steps_per_epoch=4": "`steps_per_epoch` must be at most 3, for 24 images",
    "--steps_per_epoch=0": "0 is not a positive integer",
    "--learning_rate=0": "learning_rate=0: 0.0 is not number >= 1e-09",
    "--minutes=-1": "-1.0 is not a non-negative number",
    "--seed=-1": "--seed=-1: -1 is not a non-negative",
    "--workers=-1": "-1 is not a non-negative integer",
    "--log_every=0": "--log_every=0: 0 is not a positive",
    "--save_every=0": "--save_every=0: 0 is not a positive",
    "--dim=0": "--dim=0: 0 is not a positive",
    "--depthwise=fast": "depthwise convolution has the forms rule, auto",
    "--depthwise=auto,auto,auto,auto": "must be up to three words, separated",
    "--weights=/no/file": "or the path of an existing file",
    "--output={FILE}": "A run needs a folder (`--output`). Received the file",
    "--output={SPOILT} --workers=0 --learning_rate=1e30": "is not finite. The",
    "--output={RUN} --seed=7": "seed was 0 and is 7. Take another folder",
    "--data=/no/where": "There is no `/no/where` (--data)",
    "--preset=7": "value should be one of <25|100|200>",
    "more": "Unexpected arguments: ['more']",
}


def test_wrong_flags(environment, images, finished, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    places = {
        "{FILE}": str(file),
        "{RUN}": str(finished),
        "{SPOILT}": str(tmp_path / "spoilt"),
    }
    lines = []
    for text in WRONG:
        for name, path in places.items():
            text = text.replace(name, path)
        given = [f"--output={tmp_path / 'new'}", *TINY, *text.split()]
        if "--data" not in text:
            given.insert(0, f"--data={images}")
        lines.append(given)
    printed = run_code(environment, DRIVER, json.dumps(lines))
    answers = printed.splitlines()
    for answer, (text, message) in zip(answers, WRONG.items(), strict=True):
        assert message in answer, f"{text}: {answer}"
    assert not (tmp_path / "new" / "config.json").exists()


def test_another_backend_is_refused(environment, images, tmp_path):
    result = subprocess.run(
        [sys.executable, RECIPE, f"--data={images}", f"--output={tmp_path}"],
        env={**environment, "KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert "runs on Keras' JAX backend; unset KERAS_BACKEND" in last
