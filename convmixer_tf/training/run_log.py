"""Reports of a run: log lines, CSV, TensorBoard, JSON, profile."""

import csv
import dataclasses
import importlib.util
import io
import json
import os
import platform
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.io import gfile

from convmixer_tf import progress
from convmixer_tf.files import dump_json
from convmixer_tf.files import write_text
from convmixer_tf.training.config import NOT_PART_OF_THE_RESULT
from convmixer_tf.training.config import OF_THE_DEVICES
from convmixer_tf.training.config import TrainConfig

COLUMNS = (
    "epoch",
    "step",
    "learning_rate",
    "train_loss",
    "loss",
    "top1",
    "top5",
    "balanced_accuracy",
    "mean_average_precision",
    "images_per_second",
    "seconds",
)


# Settings of `TrainConfig` whose defaults match older versions.
_LATER_SETTINGS = (
    "loss",
    "class_weight",
    "optimizer",
    "muon_learning_rate",
    "distillation_weight",
    "distillation_temperature",
)


class RunLog:
    """Writes the reports of a run.

    Args:
        directory: Path of the run folder, which exists.
        config: The run's `TrainConfig`.
        first_step: Integer, the number of updates before this process.
        writes: Boolean, whether this process writes. If not, all calls do
            nothing.
        top5: Boolean, whether to report top-5 accuracies. `log.csv` always has
            them.
    """

    def __init__(self, directory, config, first_step, writes=True, top5=True):
        self.directory = os.fspath(directory)
        self.config = config
        self.writes = writes
        self.top5 = top5
        self.events = self.bar = None
        self.profiling = False
        self.pending = []
        self.first_step = self.step = first_step
        self.pace = None  # Seconds per step.
        self._begin()
        if not writes:
            return
        if config.tensorboard:
            events = os.path.join(self.directory, "tensorboard")
            self.events = tf.summary.create_file_writer(events)
        if sys.stderr.isatty() and not progress.is_drawn():
            self.bar = _progress_bar(first_step, config.total_steps)

    def add_step(self, results):
        """Registers updates without waiting for them and reports some.

        Args:
            results: Results from `Engine.update`.

        Returns:
            Boolean, whether it reported (and therefore waited for) the last
            update.
        """
        count = len(results["loss"])
        self.step += count
        self.timed += count
        self._profile()
        self.pending.append(results["loss"])
        progress.note("step %d of %d", self.step, self.config.total_steps)
        if self.bar:
            self.bar.update(count)
            progress.touch()
        first, self.first = self.first, False
        if self.step % self.config.log_every:
            if first:
                self._restart_clock()
            return False
        values = {name: float(value[-1]) for name, value in results.items()}
        losses = np.concatenate(self.pending)
        values["loss"] = float(np.mean(losses, dtype=np.float64))
        seconds = (time.perf_counter() - self.since) / self.timed
        values["images_per_second"] = self.config.batch_size / seconds
        if not first:
            # Smoothed, because the steps after the first may also be slow.
            self.pace = (seconds + (self.pace or seconds)) / 2
        self.pending = []
        self._restart_clock()
        self._report(values)
        return True

    def add_epoch(self, history):
        """Writes the table of all epochs and logs the last epoch."""
        if not self.writes:
            return
        self.pending = []
        self._begin()
        row = history[-1]
        known = {
            name: value
            for name, value in row.items()
            if value is not None and (name != "top5" or self.top5)
        }
        if self.bar:
            self.bar.clear()
        logging.info(
            "Epoch %d: %s",
            known.pop("epoch"),
            ", ".join(f"{name} {value:.4g}" for name, value in known.items()),
        )
        if self.bar:
            self.bar.set_description(f"top-1 {row['top1']:.2%}")
        if self.events:
            with self.events.as_default(step=known.pop("step")):
                for name, value in known.items():
                    tf.summary.scalar(f"epoch/{name}", value)
            self.events.flush()
        text = io.StringIO()
        columns = [name for name in COLUMNS if name in row]
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(history)
        try:
            path = os.path.join(self.directory, "log.csv")
            write_text(path, text.getvalue())
        except (OSError, tf.errors.OpError) as error:
            # The disk may be full. The next epoch tries again.
            logging.error("Cannot write log.csv: %s", error)

    def close(self, summary=None):
        """Writes the summary if the run is complete."""
        self._stop_profiling()
        if self.bar:
            self.bar.close()
        if self.events:
            self.events.close()
        if self.writes and summary is not None:
            path = os.path.join(self.directory, "summary.json")
            dump_json(path, summary)

    def _begin(self):
        """Starts a run or an epoch. Its first step is excluded from the speed.

        The first step builds the graph or fills the input pipeline.
        """
        self.first = True
        total = self.config.total_steps
        progress.note("starting with step %d of %d", self.step + 1, total)
        self._restart_clock()

    def _restart_clock(self):
        self.since, self.timed = time.perf_counter(), 0

    def _report(self, values):
        if not self.writes:
            return
        speed = f"{values['images_per_second']:.1f} images/s"
        if self.bar:
            self.bar.set_postfix_str(f"loss {values['loss']:.4f}, {speed}")
        else:
            steps = self.config.total_steps - self.step
            left = f", {duration(steps * self.pace)} left" if self.pace else ""
            logging.info(
                "Step %d/%d: loss %.4f, gradient norm %.3g, learning rate "
                "%.3g, %s%s",
                self.step,
                self.config.total_steps,
                values["loss"],
                values["gradient_norm"],
                values["learning_rate"],
                speed,
                left,
            )
        progress.touch()
        if self.events:
            with self.events.as_default(step=self.step):
                for name, value in values.items():
                    tf.summary.scalar(f"step/{name}", value)

    def _profile(self):
        if not (self.writes and self.config.profile_steps):
            return
        first, end = self.config.profile_steps
        if first - 1 <= self.step < end - 1 and not self.profiling:
            path = os.path.join(self.directory, "tensorboard")
            tf.profiler.experimental.start(path)
            self.profiling = True
        elif self.step >= end - 1:
            self._stop_profiling()

    def _stop_profiling(self):
        if self.profiling:
            tf.profiler.experimental.stop()
            self.profiling = False


def duration(seconds):
    """Formats a number of seconds, such as `"1 h 38 min"` or `"52 s"`."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def check_tensorboard():
    """Raises `ImportError` unless TensorFlow can write scalars."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ImportError(
            "TensorBoard's event files need the package `tensorboard`: "
            "pip install convmixer_tf[train], or set tensorboard=False."
        )


def check_run(directory, config, notes=None):
    """Checks that a run can use a folder, before anything is written.

    Args:
        directory: Path of the folder. It may hold a stopped run with the same
            settings.
        config: The run's `TrainConfig`.
        notes: Dictionary of all other settings that the result depends on.

    Raises:
        ImportError: If TensorBoard's files are wanted and can't be written.
        NotADirectoryError: If the path is a file.
        ValueError: If the folder holds a run with other settings.
    """
    if config.tensorboard:
        check_tensorboard()
    if gfile.exists(directory) and not gfile.isdir(directory):
        raise NotADirectoryError(
            "The output of a run (`--output`) must be a folder. "
            f"Received: the file {directory}"
        )
    path = os.path.join(directory, "config.json")
    if gfile.exists(path):
        check_same(directory, _read_settings(path), _settings(config, notes))


def orientation_of_run(directory, orientation):
    """Returns how a run reads its images, including runs of old versions.

    Args:
        directory: Path of the folder. It need not exist.
        orientation: `"exif"` or `"stored"`, for a new run.

    Returns:
        `orientation`, or `"stored"` if the folder holds a run of a version that
        had no other option.
    """
    path = os.path.join(directory, "config.json")
    if not gfile.exists(path) or "orientation" in _read_json(path):
        return orientation
    logging.warning(
        "The run in %s has no `orientation` in its settings because an older "
        "version started it. It read pixels as stored. Resuming with "
        'orientation="stored".',
        directory,
    )
    return "stored"


def open_run(directory, config, notes=None):
    """Creates a run folder and writes the run's settings to it.

    Args:
        directory: Path of the folder, which `check_run` has checked.
        config: The run's `TrainConfig`.
        notes: Dictionary of all other settings that the result depends on.
    """
    gfile.makedirs(directory)
    for name, content in (
        ("config.json", _settings(config, notes)),
        ("environment.json", environment()),
    ):
        dump_json(os.path.join(directory, name), content)


def environment():
    """Describes this process: its command, versions and devices."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": platform.machine(),
        "devices": [
            f"{device.name} {device.device_type}"
            for device in tf.config.list_physical_devices()
        ],
    }


def _read_settings(path):
    """Reads the settings of a run, including runs of older versions."""
    found = _read_json(path)
    if "recipe" in found:
        found["augmentation"] = found.pop("recipe")
    if "augmentation" in found:
        augmentation = {"alternate_flips": False, **found["augmentation"]}
        found["augmentation"] = augmentation
    return {
        "orientation": "stored",  # See `orientation_of_run`.
        **{name: getattr(TrainConfig, name) for name in _LATER_SETTINGS},
        **found,
    }


def _read_json(path):
    with gfile.GFile(path) as file:
        return json.loads(file.read())


def _settings(config, notes):
    settings = {**dataclasses.asdict(config), **(notes or {})}
    return json.loads(json.dumps(settings))  # Tuples become lists, as in JSON.


def check_same(directory, old, new):
    """Raises `ValueError` if the run in a folder has other settings.

    Args:
        directory: Path of the folder.
        old: Dictionary of the settings in the folder.
        new: Dictionary of the settings of the new run.
    """
    changed = [
        f"{name} was {old.get(name)!r} and is {new[name]!r}"
        for name in new
        if name not in NOT_PART_OF_THE_RESULT and old.get(name) != new[name]
    ]
    if changed:
        raise ValueError(
            f"The folder {directory} holds a run with other settings: "
            f"{'; '.join(changed)}. Choose another folder (`--output`), where "
            "a new run can start from this one's model.keras, or the old "
            "settings."
        )
    for name in OF_THE_DEVICES:
        if name in old and name in new and old[name] != new[name]:
            logging.warning(
                "%s: %s was %r and is %r, so the final weights will differ.",
                *(directory, name, old[name], new[name]),
            )


def _progress_bar(first_step, total_steps):
    try:
        import tqdm
    except ImportError:
        return None
    return tqdm.tqdm(initial=first_step, total=total_steps, unit="step")
