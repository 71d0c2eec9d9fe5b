import csv
import json
import os
import signal
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from convmixer_tf.training import train
from convmixer_tf.training import trainer
from tests.training import tiny

SETTINGS = {"ema_decay": 0.9, "clip_norm": 0.3}


def run(directory, strategy, before_batch=None, **changes):
    """Trains with augmentation and dropout on."""
    batches = tiny.train_batches()

    def train_batches(epoch, first, context):
        data = batches(epoch, first, context)
        return data if before_batch is None else before_batch(data, epoch)

    return train(
        tiny.config(**{**SETTINGS, **changes}),
        lambda: tiny.build_model(dropout=0.2),
        train_batches,
        tiny.eval_batches(),
        directory,
        strategy,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, one_device):
    directory = tmp_path_factory.mktemp("finished")
    model, summary = run(directory, one_device)
    return directory, tiny.weights_of(model), summary


def without_times(rows):
    times = ("seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in times} for row in rows]


def interrupt_at(monkeypatch, step, action):
    update = trainer.Run.update

    def interrupted(self, batches):
        update(self, batches)
        if self.step == step:
            action()

    monkeypatch.setattr(trainer.Run, "update", interrupted)


class CrashError(Exception):
    pass


def crash():
    raise CrashError


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_leaves_what_the_docs_say(finished):
    directory, _, summary = finished
    assert summary["parameters"] == tiny.build_model().count_params()
    assert (summary["replicas"], summary["precision"]) == (1, "float32")
    assert summary["last"]["step"] == 8
    assert 0 < 8 * 16 / summary["seconds"] < summary["images_per_second"]
    assert json.loads((directory / "summary.json").read_text()) == summary
    with open(directory / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[-1]["top1"]) == summary["last"]["top1"]
    config = json.loads((directory / "config.json").read_text())
    assert (config["batch_size"], config["ema_decay"]) == (16, 0.9)
    assert (config["replicas"], config["computes_in"]) == (1, "float32")
    environment = json.loads((directory / "environment.json").read_text())
    assert environment["tensorflow"] == tf.__version__
    names = sorted(path.name for path in (directory / "checkpoints").iterdir())
    assert names == [
        "step_0000000004_evaluated",  # the best
        "step_0000000006",
        "step_0000000008",
        "step_0000000008_evaluated",
    ]


def test_the_model_returned_is_the_average(finished, one_device):
    directory, weights, summary = finished
    model = tiny.build_model()
    top1 = tiny_top1(model, weights)
    assert top1 == pytest.approx(summary["last"]["top1"])
    # A second call does nothing and returns the same.
    again, same_summary = run(directory, one_device)
    assert tiny.worst_difference(weights, tiny.weights_of(again)) == 0
    assert same_summary == summary


def tiny_top1(model, weights):
    values = [v for v in weights.values() if v.dtype.kind == "f"]
    model.set_weights(values)
    images, labels = (x[:61] for x in tiny.examples())
    logits = model(images, training=False).numpy()
    return np.mean(logits.argmax(axis=1) == labels)


def test_a_run_that_crashed_ends_as_if_it_had_not(
    finished, one_device, tmp_path, monkeypatch
):
    _, weights, summary = finished
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5, crash)
        with pytest.raises(CrashError):
            run(tmp_path, one_device)
    model, resumed = run(tmp_path, one_device)
    for name, value in tiny.weights_of(model).items():
        np.testing.assert_array_equal(value, weights[name], err_msg=name)
    for name in ("last", "best"):
        rows = without_times([resumed[name], summary[name]])
        assert rows[0] == rows[1]


@pytest.mark.slow
def test_a_run_in_an_object_store_goes_on(finished, one_device, monkeypatch):
    """The run is stopped, and then its checkpoint is damaged."""
    folder = "ram://runs/stopped"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5, terminate)
        with pytest.raises(SystemExit):
            run(folder, one_device)
    record = f"{folder}/checkpoints/step_0000000005/info.json"
    with tf.io.gfile.GFile(record, "w") as file:
        file.write("damaged")
    model, summary = run(folder, one_device)
    assert tiny.worst_difference(finished[1], tiny.weights_of(model)) == 0
    with tf.io.gfile.GFile(f"{folder}/summary.json") as file:
        assert json.loads(file.read()) == summary


@pytest.mark.slow
def test_a_run_with_muon_resumes_to_the_bit(one_device, tmp_path, monkeypatch):
    whole, _ = run(tmp_path / "whole", one_device, optimizer="muon")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5, crash)
        with pytest.raises(CrashError):
            run(tmp_path / "parts", one_device, optimizer="muon")
    parts, _ = run(tmp_path / "parts", one_device, optimizer="muon")
    expected = tiny.weights_of(whole)
    assert tiny.worst_difference(expected, tiny.weights_of(parts)) == 0


@pytest.mark.slow
def test_several_updates_a_call_are_the_same_to_the_bit(
    finished, one_device, tmp_path, monkeypatch
):
    """In calls of 2, 1 and 1 updates, with a crash in between."""
    with monkeypatch.context() as patch:
        interrupt_at(patch, 6, crash)
        with pytest.raises(CrashError):
            run(tmp_path, one_device, steps_per_call=2)
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert max(names) == "step_0000000004_evaluated"
    model, summary = run(tmp_path, one_device, steps_per_call=3)
    for name, value in tiny.weights_of(model).items():
        np.testing.assert_array_equal(value, finished[1][name], err_msg=name)
    rows = without_times([summary["last"], finished[2]["last"]])
    assert rows[0] == rows[1]


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 4])
def test_sigterm_saves_and_exits(
    finished, one_device, tmp_path, monkeypatch, step
):
    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        interrupt_at(patch, step, terminate)
        with pytest.raises(SystemExit) as stopped:
            run(tmp_path, one_device)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is handler
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert max(names) == f"step_{step:010d}"
    model, resumed = run(tmp_path, one_device)
    assert tiny.worst_difference(finished[1], tiny.weights_of(model)) == 0
    assert [resumed["last"]["epoch"]] == [2]
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    # The first epoch's speed is unknown if it was complete before the stop.
    known = [bool(row["images_per_second"]) for row in rows]
    assert known == [step != 4, True]
    assert resumed["images_per_second"] > 0


def test_a_second_signal_interrupts_at_once():
    with trainer.stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_signals_are_left_alone_outside_the_main_thread():
    seen = []

    def enter():
        with trainer.stop_signals() as stop:
            seen.append((stop, signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [([], before)]


@pytest.mark.large
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_replicas_resume_to_the_bit(
    two_replicas, tmp_path, monkeypatch, optimizer
):
    settings = {"optimizer": optimizer}
    whole, _ = run(tmp_path / "whole", two_replicas, **settings)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5, crash)
        with pytest.raises(CrashError):
            run(tmp_path / "parts", two_replicas, **settings)
    parts, _ = run(tmp_path / "parts", two_replicas, **settings)
    expected = tiny.weights_of(whole)
    assert tiny.worst_difference(expected, tiny.weights_of(parts)) == 0


def with_nan(first_epoch):
    def spoil(data, epoch):
        if epoch < first_epoch:
            return data
        return data.map(lambda images, labels: (images * np.nan, labels))

    return spoil


def test_nan_stops_with_the_step_and_the_last_good_state(one_device, tmp_path):
    message = r"step 5 is not finite. The last good state is .*step_0000000004"
    with pytest.raises(FloatingPointError, match=message):
        run(tmp_path, one_device, with_nan(1), save_every=1, log_every=100)
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert max(names) == "step_0000000004_evaluated"


def test_nan_at_once_has_nothing_to_go_back_to(one_device, tmp_path):
    message = "step 1 is not finite. The last good state is the beginning"
    with pytest.raises(FloatingPointError, match=message):
        run(tmp_path, one_device, with_nan(0))


@pytest.mark.slow
def test_a_full_disk_does_not_stop_the_run(
    one_device, tmp_path, monkeypatch, caplog
):
    save = trainer.CheckpointStore.save

    def full(self, checkpoint, name, *args):
        if name.startswith("step_0000000004"):
            raise OSError("No space left on device.")
        save(self, checkpoint, name, *args)

    monkeypatch.setattr(trainer.CheckpointStore, "save", full)
    with caplog.at_level("ERROR", logger=logging.get_absl_logger().name):
        _, summary = run(tmp_path, one_device)
    assert summary["last"]["step"] == 8
    assert "No space left on device. The run continues." in caplog.text


@pytest.mark.slow
def test_a_disk_still_full_at_the_end_is_an_error(
    one_device, tmp_path, monkeypatch
):
    def full(self, checkpoint, name, *args):
        raise OSError("No space left on device.")

    monkeypatch.setattr(trainer.CheckpointStore, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, one_device)


def test_other_settings_need_another_folder(finished, one_device):
    message = "rate was 0.01 and is 0.1. Choose another folder .`--output`"
    with pytest.raises(ValueError, match=message):
        run(finished[0], one_device, learning_rate=0.1)
    # Settings that do not affect the result may change.
    run(finished[0], one_device, keep=5, log_every=1)


def test_a_batch_must_divide_evenly(two_replicas, tmp_path):
    message = "multiple of 2 replicas x 2 accumulated batches. .*batch_size=6"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, two_replicas, batch_size=6, accumulation_steps=2)
    assert list(tmp_path.iterdir()) == []


def test_xla_takes_no_statistics_of_all_replicas(two_replicas, tmp_path):
    with pytest.raises(ValueError, match="XLA cannot compile batch statistics"):
        run(tmp_path, two_replicas, jit_compile=True, sync_batch_norm=True)


def test_batches_of_another_size_are_an_error(one_device, tmp_path):
    message = "32 images on this worker. Received: batch size 16"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, one_device, batch_size=32)


def test_data_that_ends_early_is_an_error(one_device, tmp_path):
    message = "epoch 0 ended before step 9 of 9. Decrease `steps_per_epoch`"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, one_device, steps_per_epoch=9)


def test_a_model_must_give_logits(one_device, tmp_path):
    def build_model():
        return keras.Sequential(
            [
                keras.Input((16, 16, 3)),
                keras.layers.Flatten(),
                keras.layers.Dense(10, "softmax"),
            ]
        )

    with pytest.raises(ValueError, match=r"must return logits.*'softmax'"):
        train(tiny.config(), build_model, None, None, tmp_path, one_device)


@pytest.mark.slow
def test_the_global_precision_is_left_as_it_was(one_device, tmp_path):
    _, summary = run(tmp_path, one_device, precision="bfloat16", epochs=1)
    assert summary["precision"] == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == "float32"
