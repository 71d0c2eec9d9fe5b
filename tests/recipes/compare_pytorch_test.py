"""The comparison with PyTorch: its report, and one tiny run of both."""

import csv
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from convmixer_tf.training import TrainConfig
from tests.peers import import_timm

RECIPE = pathlib.Path(__file__).parents[2] / "recipes" / "compare_pytorch.py"
PATHS = os.pathsep.join(map(str, (RECIPE.parents[1], RECIPE.parent)))


@pytest.fixture
def recipe(monkeypatch):
    """The module, with the flags at their defaults."""
    monkeypatch.syspath_prepend(str(RECIPE.parent))
    before, modules = set(flags.FLAGS), set(sys.modules)
    spec = importlib.util.spec_from_file_location("compare_pytorch", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    flags.FLAGS(["compare_pytorch"])
    yield module
    flags.FLAGS.unparse_flags()
    # Other recipes define flags of the same names.
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)
    for name in {"run_flags", "train_cifar10"} - modules:
        del sys.modules[name]


@pytest.fixture
def report(recipe):
    return recipe.pytorch_report


@pytest.fixture
def finished(tmp_path):
    """A folder as two runs of two epochs leave it."""
    for engine, seconds, top1 in (
        ("ours", {"1": 9.0, "2": 2.0}, (0.25, 0.5)),
        ("pytorch", {"2": 4.0}, (0.375, 0.75)),
    ):
        folder = tmp_path / engine
        folder.mkdir()
        (folder / "config.json").write_text('{"seed": 7}')
        (folder / "cpu_seconds.json").write_text(json.dumps(seconds))
        (folder / "log.csv").write_text(
            "epoch,step,train_loss,loss,top1\n"
            f"1,10,2.5,2.0,{top1[0]}\n"
            f"2,20,1.5,1.25,{top1[1]}\n"
        )
    return tmp_path


def test_rows_are_by_epoch_and_engine(report, finished):
    rows = report.read_rows(finished)
    assert [(row["epoch"], row["engine"]) for row in rows] == [
        (1, "ours"),
        (1, "pytorch"),
        (2, "ours"),
        (2, "pytorch"),
    ]
    assert rows[1] == {
        "epoch": 1,
        "engine": "pytorch",
        "train_loss": 2.5,
        "test_loss": 2.0,
        "top1": 0.375,
        "cpu_seconds": None,  # It was stopped in that epoch.
    }


def test_report_writes_a_table_a_summary_and_a_picture(
    report, finished, monkeypatch
):
    monkeypatch.setattr(report, "machine", lambda: {"cpu": "Zen 5"})
    lines = report.report(finished).splitlines()
    assert lines[2:] == [
        "| 1 | 25.00 % | 37.50 % | 2.5000 | 2.5000 |",
        "| 2 | 50.00 % | 75.00 % | 1.5000 | 1.5000 |",
    ]
    with open(finished / "compare_pytorch.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == report.COLUMNS
    assert [row["cpu_seconds"] for row in rows] == ["9.0", "", "2.0", "4.0"]
    summary = json.loads((finished / "compare_pytorch.json").read_text())
    assert summary == {
        "last_top1": {"ours": 0.5, "pytorch": 0.75},
        "largest_top1_difference": 0.25,
        "cpu_seconds_per_epoch": {"ours": 5.5, "pytorch": 4.0},
        "cpu_ratio": 1.375,
        "early_loss_difference": None,
        "machine": {"cpu": "Zen 5"},
        "settings": {"seed": 7},
    }
    picture = (finished / "compare_pytorch.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


def test_early_losses_are_read_and_compared(report, tmp_path):
    for engine, losses in (("a", [2.0, 1.0, 4.0]), ("b", [2.0, 1.25, 1.0])):
        folder = str(tmp_path / engine / "tensorboard")
        with tf.summary.create_file_writer(folder).as_default():
            for step, loss in zip((5, 100, 105), losses, strict=True):
                tf.summary.scalar("step/loss", loss, step)
    ours, theirs = (report.logged_losses(tmp_path / name) for name in "ab")
    assert ours == {5: 2.0, 100: 1.0, 105: 4.0}
    assert report.early_difference(ours, theirs) == pytest.approx(0.2)
    assert report.early_difference({105: 4.0}, theirs) is None


def test_picture_has_both_engines_in_both_panels(report, finished):
    panels = report.plot(report.read_rows(finished)).axes
    drawn = [
        {line.get_label(): list(line.get_ydata()) for line in panel.lines}
        for panel in panels
    ]
    assert drawn == [
        {"convmixer_tf": [25, 50], "PyTorch": [37.5, 75]},
        {"convmixer_tf": [2.5, 1.5], "PyTorch": [2.5, 1.5]},
    ]


def test_clock_counts_whole_epochs_and_goes_on(recipe, tmp_path, monkeypatch):
    times = iter([1.0, 4.0, 5.0, 0.0, 2.5])
    monkeypatch.setattr(recipe.time, "process_time", lambda: next(times))
    path = tmp_path / "cpu_seconds.json"
    clock = recipe.CpuClock(path)
    clock.start(0)
    clock.stop()
    clock.start(None)
    clock.stop()
    clock = recipe.CpuClock(path)
    clock.start(2)
    clock.stop()
    assert json.loads(path.read_text()) == {"1": 3.0, "3": 2.5}


def test_what_only_our_engine_does_is_refused(recipe):
    assert recipe.comparable(TrainConfig()) == TrainConfig(precision="float32")
    for changed in (
        {"accumulation_steps": 2},
        {"ema_decay": 0.5},
        {"jit_compile": True},
        {"precision": "bfloat16"},
        {"sync_batch_norm": True},
    ):
        ((name, value),) = changed.items()
        with pytest.raises(ValueError, match=f"only our .*{name}={value}"):
            recipe.comparable(TrainConfig(**changed))
    flags.FLAGS.strategy = "mirrored"
    with pytest.raises(ValueError, match="strategy=mirrored"):
        recipe.comparable(TrainConfig())


@pytest.mark.parametrize("package", ["torch", "timm"])
def test_missing_packages_are_named(recipe, monkeypatch, package):
    monkeypatch.setitem(sys.modules, "timm", type(sys)("timm"))
    monkeypatch.setitem(sys.modules, "torch", type(sys)("torch"))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match="pip install torch timm"):
        recipe.check_pytorch()


def test_failure_of_one_stops_the_other(recipe, tmp_path, monkeypatch):
    code = """
import sys, time
if sys.argv[1] == "--engine=pytorch":
    time.sleep(60)
sys.exit("no such file")
"""
    command = [sys.executable, "-c", code]
    monkeypatch.setattr(sys, "orig_argv", command)
    start = time.monotonic()
    message = r"with ours ended with status 1(.|\n)*no such file"
    with pytest.raises(RuntimeError, match=message):
        recipe.train_side_by_side(tmp_path)
    assert time.monotonic() - start < 30


def test_nobody_else_may_be_at_work(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", ""])
    with open(tmp_path / "pytorch.log", "w") as log:
        recipe.check_idle(log)
        with pytest.raises(
            RuntimeError, match=r"still writes to .*pytorch\.log"
        ):
            recipe.train_side_by_side(tmp_path)
    recipe.train_side_by_side(tmp_path)


RUN = """
import runpy, sys
from tests.peers import import_timm

import_timm()
sys.argv[0] = {recipe!r}
runpy.run_path({recipe!r}, run_name="__main__")
""".format(recipe=str(RECIPE))
TINY = (
    *("--dim=8", "--depth=2", "--batch_size=8", "--epochs=3", "--seed=3"),
    *("--learning_rate=0.01", "--log_every=1", "--notensorboard"),
)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    rng = np.random.default_rng(0)
    for label, name in enumerate(("blue", "green", "red")):
        for split, count in (("train", 8), ("test", 3)):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 120, (32, 32, 3))
                image[..., 2 - label] += 120
                png = tf.io.encode_png(tf.cast(image, tf.uint8)).numpy()
                (folder / split / name / f"{i}.png").write_bytes(png)
    return folder


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments],
        env={**os.environ, "PYTHONPATH": PATHS},
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_after_the_first_epoch(process, folder):
    while not (folder / "checkpoint.pt").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.kill()
    process.communicate()


@pytest.mark.peer
def test_both_learn_the_same_though_pytorch_was_killed(images, tmp_path):
    import_timm()
    output = tmp_path / "output"
    arguments = (*TINY, f"--data={images}", f"--output={output}")
    process = start(*arguments, "--engine=pytorch")
    kill_after_the_first_epoch(process, output / "pytorch")
    process = start(*arguments)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    assert "Goes on after epoch 1." in (output / "pytorch.log").read_text()
    with open(output / "compare_pytorch.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["engine"] for row in rows] == ["ours", "pytorch"] * 3
    for ours, theirs in zip(rows[::2], rows[1::2], strict=True):
        for name in ("train_loss", "test_loss"):
            expected = pytest.approx(float(theirs[name]), rel=1e-4)
            assert float(ours[name]) == expected
        assert ours["top1"] == theirs["top1"]
        assert float(theirs["cpu_seconds"]) > 0
