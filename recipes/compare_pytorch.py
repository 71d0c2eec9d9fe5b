"""Trains one ConvMixer on CIFAR-10 twice: with our engine and with PyTorch.

    python recipes/compare_pytorch.py --data FOLDER

Needs `pip install torch timm`. Both start from the same weights and see the
same augmented batches in the same order, out of our input pipeline; model
(timm's), loss, gradient, clipping, optimizer and batch normalisation of the
other side are PyTorch's. The data and the settings are those of
`train_cifar10.py`, whose flags this has too.

The two run side by side, each in a process with one thread on one core. The
same command goes on with what was stopped. The folder `--output` then has
`compare_pytorch.csv` (a line per epoch and engine), `.json` and `.png`.

Time: 44 minutes on two cores that others used as well; the training itself
took 6 CPU minutes with ours and 11 with PyTorch. Result, of a ConvMixer-128/4
with 4 x 4 patches in eight epochs: 76.6 % of the test images with either, and
losses that agree within 2e-6 for the first hundred updates. See
results/compare_pytorch.csv, .json and .png.
"""

import dataclasses
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytorch_report
import run_flags
import tensorflow as tf
import train_cifar10
from absl import app
from absl import flags
from absl import logging
from pytorch_report import ENGINES

from convmixer_tf.files import dump_json
from convmixer_tf.training import evaluation_inputs
from convmixer_tf.training import train
from convmixer_tf.training.classifier import check_datasets
from convmixer_tf.training.classifier import data_notes
from convmixer_tf.training.classifier import training_inputs
from convmixer_tf.training.run_log import check_run

# What our engine can and the PyTorch loop can't.
ONLY_OURS = {
    "accumulation_steps": 1,
    "sync_batch_norm": False,
    "ema_decay": None,
    "jit_compile": False,
}
# Of the run that is reported; small, for two cores.
DEFAULTS = {
    "output": "runs/compare_pytorch",
    "dim": 128,
    "depth": 4,
    "patch_size": 4,
    "epochs": 8,
}

FLAGS = flags.FLAGS
for _name, _value in DEFAULTS.items():
    FLAGS.set_default(_name, _value)
_ENGINE = flags.DEFINE_enum(
    "engine", "both", ("both", *ENGINES), "Which one to train with."
)


def main(argv):
    """Trains with both engines, or with the one that a flag names."""
    run_flags.begin(argv)
    check_pytorch()
    engine = _ENGINE.value
    if engine != "both":
        take_one_core(engine)
    train_set, test_set = run_flags.open_datasets(FLAGS.data, "train", "test")
    config = comparable(train_cifar10.make_config(train_set))
    check_datasets(config, train_set, test_set)
    output = pathlib.Path(FLAGS.output)
    classes = len(train_set.class_names)
    recipe = train_cifar10.PRESETS[FLAGS.preset].recipe
    notes = {
        **data_notes(train_set, recipe, 32),
        "model": train_cifar10.model_flags(),
    }
    for name in ENGINES:
        check_run(output / name, config, notes)
    if engine == "both":
        train_cifar10.make_model(classes)  # Raises if it can't be built.
        output.mkdir(parents=True, exist_ok=True)
        # So that whatever stops this process stops the other two as well.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        train_side_by_side(output)
        logging.info("\n%s", pytorch_report.report(output))
        return
    run = train_ours
    if engine == "pytorch":
        import pytorch_loop

        run = pytorch_loop.train
    run(
        config,
        lambda: train_cifar10.make_model(classes),
        training_inputs(config, train_set, recipe, 32),
        evaluation_inputs(test_set, 32, config.batch_size, 1.0),
        output / engine,
        notes,
        CpuClock(output / engine / "cpu_seconds.json"),
    )


def check_pytorch():
    """Raises `ImportError` if PyTorch or timm is missing."""
    try:
        import timm  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "The comparison needs torch and timm: `pip install torch timm`."
        ) from error


def comparable(config):
    """Checks that both engines can do what a config asks for.

    Args:
        config: A `TrainConfig`.

    Returns:
        The config, with its precision settled.

    Raises:
        ValueError: If one of them can't.
    """
    wrong = [
        f"{name}={getattr(config, name)}"
        for name, value in ONLY_OURS.items()
        if getattr(config, name) != value
    ]
    if config.precision not in ("auto", "float32"):
        wrong.append(f"precision={config.precision}")
    if FLAGS.strategy not in ("auto", "one"):
        wrong.append(f"strategy={FLAGS.strategy}")
    if wrong:
        raise ValueError(
            "The PyTorch loop trains in float32 on one core, each batch at "
            f"once. Leave out what only our engine does: {', '.join(wrong)}"
        )
    return dataclasses.replace(config, precision="float32")


def take_one_core(engine):
    """Gives this process one thread on one core, and no GPU.

    Args:
        engine: One of `ENGINES`. Each has a core of its own, if there are two.
    """
    import torch

    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        core = cores[ENGINES.index(engine) % len(cores)]
        os.sched_setaffinity(0, {core})
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.set_visible_devices([], "GPU")
    torch.set_num_threads(1)


def train_side_by_side(output):
    """Runs this same command once for each engine, and waits for both.

    Args:
        output: Path of the folder for their runs and logs.

    Raises:
        RuntimeError: If one fails; the other is stopped then. Or if one is
            still at work in that folder, since a `kill -9` of this process.
    """
    processes = {}
    try:
        for engine in ENGINES:
            with open(output / f"{engine}.log", "a") as log:
                check_idle(log)
                processes[engine] = subprocess.Popen(
                    [sys.executable, *sys.orig_argv[1:], f"--engine={engine}"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )
            logging.info("Training: see %s", output / f"{engine}.log")
        while any(process.poll() is None for process in processes.values()):
            check_processes(processes, output)
            time.sleep(0.5)
        check_processes(processes, output)
    finally:
        for process in processes.values():
            process.terminate()
            process.wait()


def check_idle(log):
    """Locks the file that a process logs to, for as long as it has it open.

    Args:
        log: File object.

    Raises:
        RuntimeError: If another process has it.
    """
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RuntimeError(
            f"A process that was started earlier still writes to {log.name}. "
            "End it, or wait, or take another `--output`."
        ) from error


def check_processes(processes, output):
    """Raises `RuntimeError` if one of the processes has failed."""
    for engine, process in processes.items():
        if process.poll():
            path = output / f"{engine}.log"
            end = path.read_text(errors="replace")[-2000:]
            raise RuntimeError(
                f"Training with {engine} ended with status "
                f"{process.returncode}. The same command goes on from the "
                f"last checkpoints. The end of {path}:\n{end}"
            )


class CpuClock:
    """Notes how long this process trains, in CPU seconds per whole epoch.

    Args:
        path: `pathlib.Path` of the JSON file that keeps the times.
    """

    def __init__(self, path):
        self.path = path
        self.seconds = json.loads(path.read_text()) if path.exists() else {}

    def start(self, epoch):
        """Starts an epoch; `None` if it is only the rest of one."""
        self.epoch, self.since = epoch, time.process_time()

    def stop(self):
        """Ends the training part of an epoch, before its evaluation."""
        if self.epoch is not None:
            seconds = time.process_time() - self.since
            self.seconds[str(self.epoch + 1)] = seconds
            dump_json(self.path, self.seconds)


def train_ours(
    config, build_model, train_batches, test_batches, folder, notes, clock
):
    """Trains with our engine. Its arguments are those of the PyTorch loop."""

    def timed_train_batches(epoch, first_batch, context):
        clock.start(None if first_batch else epoch)
        return train_batches(epoch, first_batch, context)

    def timed_test_batches(context):
        clock.stop()
        return test_batches(context)

    train(
        config,
        build_model,
        timed_train_batches,
        timed_test_batches,
        folder,
        "one",
        notes,
    )


if __name__ == "__main__":
    app.run(main)
