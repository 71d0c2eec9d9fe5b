"""Tests how scripts end on errors."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
from absl import app
from absl import logging

from convmixer_tf import ConvMixer
from convmixer_tf import data
from convmixer_tf import progress
from tests.helpers import write_images

RECIPES = pathlib.Path(__file__).parents[2] / "recipes"


@pytest.fixture
def launch(monkeypatch):
    monkeypatch.syspath_prepend(RECIPES)
    module = importlib.import_module("launch")
    monkeypatch.setattr(module.app, "run", lambda main: main(["script"]))
    return module


def test_an_error_of_ours_ends_in_one_line(launch, caplog):
    caplog.set_level("DEBUG", logger=logging.get_absl_logger().name)
    with pytest.raises(SystemExit) as ended:
        launch.run(lambda argv: ConvMixer(0, 1, 1, 1))
    assert ended.value.code == (
        "ValueError: Argument `dim` must be a positive integer. Received: dim=0"
    )
    # --verbosity=1 shows the traceback.
    (record,) = caplog.records
    assert record.exc_info[0] is ValueError


@pytest.mark.parametrize("count", [1, 2])
def test_an_unreadable_image_ends_in_one_line(launch, tmp_path, count):
    write_images(tmp_path / "test", ("red", "blue"), 2, 8)
    paths = [tmp_path / "test" / "red" / f"[{i}].png" for i in range(count)]
    for path in paths:
        path.touch()
    dataset = data.open_dataset(tmp_path, "test")
    with pytest.raises(SystemExit) as ended:
        launch.run(lambda argv: list(data.evaluation_batches(dataset, 8, 6)))
    names = " ".join(map(str, paths))
    why = " It is empty." if count == 1 else ""
    assert ended.value.code == (
        f"Unreadable image: {names}.{why} Repair or remove it, and run the "
        "same command again."
    )


def test_a_long_silence_is_broken(launch, monkeypatch, capsys):
    monkeypatch.setattr(progress, "FIRST", 0.1)

    def main(argv):
        progress.note("step %d of %d", 3, 9)
        time.sleep(0.25)

    launch.run(main)
    assert capsys.readouterr().err == "0 s: step 3 of 9\n"


def _fail(error):
    raise error


@pytest.mark.parametrize(
    ("main", "error"),
    [
        (lambda argv: int("x"), ValueError),
        (lambda argv: json.loads("x"), json.JSONDecodeError),
        (lambda argv: {}["x"], KeyError),
        (lambda argv: _fail(app.UsageError("x")), app.UsageError),
    ],
)
def test_other_errors_keep_their_traceback(launch, main, error):
    with pytest.raises(error):
        launch.run(main)


def test_an_interruption_ends_in_one_line(launch, capsys):
    with pytest.raises(SystemExit) as ended:
        launch.run(lambda argv: _fail(KeyboardInterrupt()))
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_without_an_error_nothing_happens(launch):
    seen = []
    launch.run(seen.append)
    assert seen == [["script"]]


@pytest.mark.large
def test_recipes_start_without_the_log_of_tensorflow():
    # In a fresh process: TensorFlow logs while it is imported.
    command = [sys.executable, "-c", "import curves, launch"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (RECIPES.parent, RECIPES))),
    }
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
