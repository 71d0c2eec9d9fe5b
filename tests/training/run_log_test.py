import builtins
import dataclasses
import importlib.util
import json
import sys

import pytest
import tensorflow as tf
from absl import logging

from convmixer_tf import progress
from convmixer_tf.data import get_augmentation
from convmixer_tf.training import run_log
from convmixer_tf.training.run_log import RunLog
from convmixer_tf.training.run_log import check_run
from convmixer_tf.training.run_log import open_run
from tests.training import tiny

RESULTS = {"loss": 2.0, "gradient_norm": 0.5, "learning_rate": 0.25}
EPOCH = dict.fromkeys(run_log.COLUMNS, 1.0) | {"epoch": 1, "step": 3}


def steps(log, count):
    return [
        log.add_step(
            {k: tf.constant([v]) for k, v in (RESULTS | {"loss": i}).items()}
        )
        for i in map(float, range(count))
    ]


def test_a_line_has_the_mean_loss_and_the_time_left(
    tmp_path, caplog, monkeypatch
):
    log = RunLog(tmp_path, tiny.config(log_every=3), 0)
    # The first step, which builds the graph, takes 9,000 seconds, all others
    # 400.
    monkeypatch.setattr(
        run_log.time,
        "perf_counter",
        lambda: 9_000 + 400 * (log.step - 1),
    )
    with caplog.at_level("INFO", logger=logging.get_absl_logger().name):
        assert steps(log, 7) == [False, False, True, False, False, True, False]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("Step 3/8: loss 1.0000, gradient norm 0.5, ")
    assert lines[1].startswith("Step 6/8: loss 4.0000, ")
    # Of 400 seconds a step, for 16 images.
    assert lines[0].endswith("0.0 images/s, 33 min left")
    assert lines[1].endswith("0.0 images/s, 13 min left")


def lines_of(log, monkeypatch, caplog, seconds):
    """Reports steps of given durations; returns the remaining times."""
    clock = [0.0]
    monkeypatch.setattr(run_log.time, "perf_counter", lambda: clock[0])
    log._restart_clock()
    caplog.clear()
    with caplog.at_level("INFO", logger=logging.get_absl_logger().name):
        for length in seconds:
            clock[0] += length
            steps(log, 1)
    lines = [record.getMessage() for record in caplog.records]
    return [line.partition("images/s")[2] for line in lines]


def test_the_time_left_does_not_jump(tmp_path, caplog, monkeypatch):
    """The first step of a run or an epoch is not representative."""
    log = RunLog(tmp_path, tiny.config(log_every=1), 0)
    left = lines_of(log, monkeypatch, caplog, [9000, 60, 60])
    assert left == ["", ", 6 min left", ", 5 min left"]
    log.add_epoch([EPOCH])
    left = lines_of(log, monkeypatch, caplog, [4000, 60])
    assert left == [", 4 min left", ", 3 min left"]
    # A single slow step has half the weight and is soon forgotten.
    left = lines_of(log, monkeypatch, caplog, [180, 60])
    assert left == [", 4 min left", ", 2 min left"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (89, "89 s"),
        (150, "2 min"),
        (3599, "1 h 0 min"),
        (5911, "1 h 39 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert run_log.duration(seconds) == text


def test_a_bar_takes_the_place_of_lines_on_a_terminal(
    tmp_path, capsys, monkeypatch, caplog
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    log = RunLog(tmp_path, tiny.config(log_every=3), 2)
    with caplog.at_level("INFO", logger=logging.get_absl_logger().name):
        steps(log, 4)
    assert caplog.records == []
    log.add_epoch([EPOCH | {"top1": 0.125}])
    log.close()
    shown = capsys.readouterr().err
    assert "2/8" in shown
    assert "6/8" in shown
    assert "images/s" in shown
    assert "top-1 12.50%" in shown


def test_where_a_bar_is_drawn_there_is_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.drawn():
        assert RunLog(tmp_path, tiny.config(), 0).bar is None


def test_without_tqdm_there_are_lines(tmp_path, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "tqdm":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(builtins, "__import__", refuse)
    assert RunLog(tmp_path, tiny.config(), 0).bar is None


@pytest.mark.parametrize("top5", [True, False])
def test_what_is_unknown_or_says_nothing_is_left_out(tmp_path, caplog, top5):
    log = RunLog(tmp_path, tiny.config(), 0, top5=top5)
    with caplog.at_level("INFO", logger=logging.get_absl_logger().name):
        log.add_epoch([EPOCH | {"images_per_second": None}])
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("Epoch 1: step 3, learning_rate 1, train_loss 1, ")
    assert "images_per_second" not in line
    assert ("top5 1" in line) == top5
    header, row = (tmp_path / "log.csv").read_text().splitlines()
    assert header == ",".join(run_log.COLUMNS)
    assert row.endswith("1.0,1.0,,1.0")


def test_the_table_is_replaced_whole(tmp_path):
    log = RunLog(tmp_path, tiny.config(), 0)
    log.add_epoch([EPOCH])
    log.add_epoch([EPOCH, {**EPOCH, "epoch": 2}])
    header, *rows = (tmp_path / "log.csv").read_text().splitlines()
    assert header == ",".join(run_log.COLUMNS)
    assert [row.split(",")[0] for row in rows] == ["1", "2"]


def test_a_process_that_does_not_write_writes_nothing(tmp_path):
    log = RunLog(tmp_path, tiny.config(tensorboard=True), 0, writes=False)
    assert steps(log, 3)[-1]
    log.add_epoch([EPOCH])
    log.close({"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_event_files_hold_steps_and_epochs(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing import event_accumulator

    log = RunLog(tmp_path, tiny.config(tensorboard=True, log_every=3), 0)
    steps(log, 3)
    log.add_epoch([EPOCH])
    log.close()
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()["tensors"]
    assert {"step/loss", "step/images_per_second", "epoch/top1"} <= set(tags)
    (event,) = events.Tensors("step/loss")
    assert event.step == 3
    assert tf.make_ndarray(event.tensor_proto) == 1.0


def test_the_profiler_runs_in_its_window(tmp_path, monkeypatch):
    calls = []
    profiler = tf.profiler.experimental
    monkeypatch.setattr(profiler, "start", lambda path: calls.append("start"))
    monkeypatch.setattr(profiler, "stop", lambda: calls.append("stop"))
    log = RunLog(tmp_path, tiny.config(profile_steps=(2, 4)), 0)
    seen = []
    for _ in range(6):
        steps(log, 1)
        seen.append(list(calls))
    assert seen[0] == seen[1] == ["start"]
    assert seen[2] == seen[5] == ["start", "stop"]


def test_a_run_that_ends_early_still_gets_its_profile(tmp_path, monkeypatch):
    calls = []
    profiler = tf.profiler.experimental
    monkeypatch.setattr(profiler, "start", lambda path: calls.append("start"))
    monkeypatch.setattr(profiler, "stop", lambda: calls.append("stop"))
    log = RunLog(tmp_path, tiny.config(profile_steps=(2, 4)), 0)
    steps(log, 1)
    log.close()
    assert calls == ["start", "stop"]
    # A run that resumes after the window has nothing to stop.
    log = RunLog(tmp_path, tiny.config(profile_steps=(2, 4)), 2)
    steps(log, 3)
    assert calls == ["start", "stop"]


def test_missing_tensorboard_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = r"pip install convmixer_tf\[train\], or set tensorboard=False"
    with pytest.raises(ImportError, match=message):
        check_run(tmp_path / "run", tiny.config(tensorboard=True))
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_told_of_other_devices(tmp_path, caplog):
    config = tiny.config()
    open_run(tmp_path, config)  # As it was before this was kept.
    check_run(tmp_path, config, {"replicas": 2, "computes_in": "float32"})
    open_run(tmp_path, config, {"replicas": 2, "computes_in": "float32"})
    check_run(tmp_path, config)
    assert not caplog.messages
    with caplog.at_level("WARNING", logger=logging.get_absl_logger().name):
        check_run(tmp_path, config, {"replicas": 4, "computes_in": "float32"})
    assert [message.split(": ")[1] for message in caplog.messages] == [
        "replicas was 2 and is 4, so the final weights will differ."
    ]


def test_a_run_of_an_older_version_goes_on(tmp_path):
    """Its settings lack an option that did not exist."""
    config = tiny.config()
    augmentation = dataclasses.asdict(get_augmentation("none"))
    open_run(tmp_path, config, {"augmentation": augmentation})
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text())
    for name in run_log._LATER_SETTINGS:
        del settings[name]
    settings["recipe"] = settings.pop("augmentation")
    del settings["recipe"]["alternate_flips"]
    path.write_text(json.dumps(settings))
    check_run(tmp_path, config, {"augmentation": augmentation})
    for other, notes in (
        (tiny.config(optimizer="muon"), augmentation),
        (config, {**augmentation, "alternate_flips": True}),
    ):
        with pytest.raises(ValueError, match="holds a run with other settings"):
            check_run(tmp_path, other, {"augmentation": notes})
