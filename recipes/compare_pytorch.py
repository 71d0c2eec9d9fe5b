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

Time and result: see BUILD.md.
"""

import csv
import dataclasses
import fcntl
import io
import json
import math
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import time

import numpy as np
import run_flags
import tensorflow as tf
import train_cifar10
from absl import app
from absl import flags
from absl import logging

from convmixer_tf import weights
from convmixer_tf.files import replaced
from convmixer_tf.training import evaluate_function
from convmixer_tf.training import evaluation_inputs
from convmixer_tf.training import train
from convmixer_tf.training.classifier import check_datasets
from convmixer_tf.training.classifier import training_inputs
from convmixer_tf.training.run_log import RunLog
from convmixer_tf.training.run_log import dump_json
from convmixer_tf.training.run_log import open_run
from convmixer_tf.training.schedule import make_schedule
from convmixer_tf.weights.names import to_keras

ENGINES = ("ours", "pytorch")
COLUMNS = ("epoch", "engine", "train_loss", "test_loss", "top1", "cpu_seconds")
# What our engine can and the PyTorch loop below can't.
ONLY_OURS = {
    "accumulation_steps": 1,
    "sync_batch_norm": False,
    "ema_decay": None,
    "jit_compile": False,
}

EARLY = 100  # updates
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
    if engine == "both":
        train_cifar10.make_model(classes)  # Raises if it can't be built.
        output.mkdir(parents=True, exist_ok=True)
        # So that whatever stops this process stops the other two as well.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        train_side_by_side(output)
        logging.info("\n%s", report(output))
        return
    recipe = train_cifar10.PRESETS[FLAGS.preset].recipe
    run = {"ours": train_ours, "pytorch": train_pytorch}[engine]
    run(
        config,
        lambda: train_cifar10.make_model(classes),
        training_inputs(config, train_set, recipe, 32),
        evaluation_inputs(test_set, 32, config.batch_size, 1.0),
        output / engine,
        {
            "recipe": dataclasses.asdict(recipe),
            "model": {
                name: FLAGS[name].value
                for name in ("preset", "dim", "depth", "patch_size")
            },
            "train_images": len(train_set),
        },
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
    if run_flags.strategy() not in ("auto", "one"):
        wrong.append(f"strategy={run_flags.strategy()}")
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


def train_ours(config, build_model, train_batches, test_batches, folder, notes):
    """Trains with our engine. The arguments are those of `train`."""
    clock = CpuClock(folder / "cpu_seconds.json")

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


def train_pytorch(
    config, build_model, train_batches, test_batches, folder, notes
):
    """Trains in a plain PyTorch loop. The arguments are those of `train`."""
    open_run(folder, config, notes)
    clock = CpuClock(folder / "cpu_seconds.json")
    model = timm_twin(config.seed, build_model)
    optimizer = torch_optimizer(config, model)
    history = restore(folder / "checkpoint.pt", model, optimizer)
    log = RunLog(folder, config, len(history) * config.steps_per_epoch)
    context = tf.distribute.InputContext()
    for epoch in range(len(history), config.epochs):
        clock.start(epoch)
        batches = train_batches(epoch, 0, context)
        loss = train_epoch(config, model, optimizer, batches, epoch, log)
        clock.stop()
        scores = evaluate(model, test_batches(context))
        history.append(
            {
                "epoch": epoch + 1,
                "step": (epoch + 1) * config.steps_per_epoch,
                "learning_rate": optimizer.param_groups[0]["lr"],
                "train_loss": loss,
                "loss": scores.loss,
                "top1": scores.top1,
                "top5": scores.top5,
            }
        )
        log.add_epoch(history)
        save(folder / "checkpoint.pt", model, optimizer, history)
    log.close({"last": history[-1]})


def timm_twin(seed, build_model):
    """Builds timm's model with the weights that our engine starts from.

    Args:
        seed: Integer, the seed of the run.
        build_model: As for `train`.

    Returns:
        A `torch.nn.Module` for images of shape (batch, 3, height, width),
        normalised, in channels-last memory, which is PyTorch's faster layout
        here.
    """
    import keras
    import torch
    from timm.models.convmixer import ConvMixer

    keras.utils.set_random_seed(seed)
    ours = build_model()
    state = weights.timm_state_dict(ours)
    architecture = weights.infer_architecture(to_keras(state))
    twin = ConvMixer(
        architecture.dim,
        architecture.depth,
        kernel_size=architecture.kernel_size,
        patch_size=architecture.patch_size,
        num_classes=architecture.classes,
    )
    twin.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    return twin.to(memory_format=torch.channels_last)


def torch_optimizer(config, model):
    """Builds `torch.optim.AdamW` with the settings of a config.

    Args:
        config: A `TrainConfig`.
        model: A `torch.nn.Module`.

    Returns:
        A `torch.optim.Optimizer`.
    """
    import torch

    decayed, others = [], []
    for parameter in model.parameters():
        decays = config.decay_all or parameter.ndim > 1
        (decayed if decays else others).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(config.beta_1, config.beta_2),
        eps=config.epsilon,
    )


def train_epoch(config, model, optimizer, batches, epoch, log):
    """Trains for one epoch.

    Args:
        config: A `TrainConfig`.
        model: A `torch.nn.Module`.
        optimizer: A `torch.optim.Optimizer` of its parameters.
        batches: What `data.train_batches` returns.
        epoch: Integer, from 0.
        log: A `RunLog`, or anything with its `add_step`.

    Returns:
        Float, the mean loss.
    """
    import torch

    first = epoch * config.steps_per_epoch
    steps = tf.range(first, first + config.steps_per_epoch)
    rates = make_schedule(config)(steps).numpy().tolist()
    model.train()
    losses = []
    # The rates come first, so that no batch is fetched after the last step.
    for rate, (images, shares) in zip(rates, batches, strict=False):
        logits = model(network_input(images))
        loss = torch.nn.functional.cross_entropy(
            logits, torch.tensor(shares.numpy())
        )
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(
            model.parameters(), config.clip_norm or math.inf
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(loss.item())
        log.add_step(
            {"loss": losses[-1], "gradient_norm": norm, "learning_rate": rate}
        )
    return statistics.fmean(losses)


def evaluate(model, batches):
    """Evaluates a `torch.nn.Module` on what `evaluation_batches` gives."""
    import torch

    model.eval()

    def predict(images):
        with torch.inference_mode():
            return model(network_input(images)).numpy()

    classes = model.head.out_features
    return evaluate_function(predict, batches, classes)


def network_input(images):
    """Normalises pixels, which our model does by itself.

    Args:
        images: Array or tensor of shape (batch, height, width, 3).

    Returns:
        A `torch.Tensor` of shape (batch, 3, height, width) that lies in memory
        channels last.
    """
    import torch

    mean, std = torch.tensor([train_cifar10.MEAN, train_cifar10.STD])
    pixels = torch.tensor(np.asarray(images))
    return ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)


def save(path, model, optimizer, history):
    """Writes the state of a PyTorch run, whole or not at all."""
    import torch

    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history,
    }
    with replaced(path) as unfinished:
        torch.save(state, unfinished)


def restore(path, model, optimizer):
    """Reads what `save` wrote, if it did.

    Returns:
        List of the epochs so far, which may be empty.
    """
    import torch

    if not path.exists():
        return []
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    logging.info("Goes on after epoch %d.", len(state["history"]))
    return state["history"]


def report(output):
    """Writes the CSV, the JSON and the picture of two finished runs.

    Args:
        output: Path of the folder with a folder for each engine.

    Returns:
        String, a Markdown table.
    """
    rows = read_rows(output)
    with replaced(output / "compare_pytorch.csv") as unfinished:
        text = io.StringIO()
        file = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        file.writeheader()
        file.writerows(rows)
        pathlib.Path(unfinished).write_text(text.getvalue())
    dump_json(
        output / "compare_pytorch.json",
        {
            **summarise(rows),
            "early_loss_difference": early_difference(
                *(logged_losses(output / engine) for engine in ENGINES)
            ),
            "machine": machine(),
            "settings": json.loads((output / "ours/config.json").read_text()),
        },
    )
    with replaced(output / "compare_pytorch.png") as unfinished:
        plot(rows).savefig(unfinished, dpi=120)
    return table(rows)


def read_rows(output):
    """Reads the logs of both runs.

    Args:
        output: As for `report`.

    Returns:
        List of dictionaries with the keys `COLUMNS`, by epoch and engine.
    """
    rows = []
    for engine in ENGINES:
        folder = output / engine
        seconds = json.loads((folder / "cpu_seconds.json").read_text())
        with open(folder / "log.csv", newline="") as file:
            rows += [
                {
                    "epoch": int(row["epoch"]),
                    "engine": engine,
                    "train_loss": float(row["train_loss"]),
                    "test_loss": float(row["loss"]),
                    "top1": float(row["top1"]),
                    "cpu_seconds": seconds.get(row["epoch"]),
                }
                for row in csv.DictReader(file)
            ]
    return sorted(rows, key=lambda row: (row["epoch"], row["engine"]))


def summarise(rows):
    """Reduces the rows of both runs to what to remember.

    Args:
        rows: What `read_rows` returns.

    Returns:
        Dictionary, ready for JSON. CPU seconds are medians over the epochs
        that one process trained as a whole; they include reading and
        augmenting the images, for which both use our pipeline, but not the
        evaluation.
    """
    ours, theirs = (
        [row for row in rows if row["engine"] == engine] for engine in ENGINES
    )
    seconds = [
        statistics.median(r["cpu_seconds"] for r in part if r["cpu_seconds"])
        for part in (ours, theirs)
    ]
    return {
        "last_top1": dict(
            zip(ENGINES, (ours[-1]["top1"], theirs[-1]["top1"]), strict=True)
        ),
        "largest_top1_difference": max(
            abs(a["top1"] - b["top1"])
            for a, b in zip(ours, theirs, strict=True)
        ),
        "cpu_seconds_per_epoch": dict(zip(ENGINES, seconds, strict=True)),
        "cpu_ratio": seconds[0] / seconds[1],
    }


def logged_losses(folder):
    """Reads the training losses from TensorBoard's files.

    Args:
        folder: Path of a run's folder.

    Returns:
        Dictionary from steps to losses, the means since the step before;
        empty for a run with `--notensorboard`.
    """
    if not (folder / "tensorboard").exists():
        return {}
    from tensorboard.backend.event_processing import event_accumulator

    events = event_accumulator.EventAccumulator(
        str(folder / "tensorboard"), size_guidance={"tensors": 0}
    ).Reload()
    return {
        event.step: float(tf.make_ndarray(event.tensor_proto))
        for event in events.Tensors("step/loss")
    }


def early_difference(ours, theirs):
    """Compares losses before rounding errors have grown.

    Args:
        ours: What `logged_losses` returns.
        theirs: The same, of PyTorch.

    Returns:
        The largest relative difference up to step `EARLY`, or `None` if no
        loss was logged until then.
    """
    return max(
        (
            abs(loss / theirs[step] - 1)
            for step, loss in ours.items()
            if step <= EARLY
        ),
        default=None,
    )


def machine():
    """Describes the machine and the software."""
    import timm
    import torch

    cpuinfo = pathlib.Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    name = re.search(r"model name\s*: (.*)", text)
    return {
        "cpu": name and name[1],
        "cores": os.cpu_count(),
        "cores per engine": 1,
        "date": time.strftime("%Y-%m-%d"),
        "tensorflow": tf.__version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
    }


def table(rows):
    """Formats rows as a Markdown table, a line per epoch.

    Args:
        rows: What `read_rows` returns.

    Returns:
        String.
    """
    lines = [
        "| epoch | top-1, ours | PyTorch | train loss, ours | PyTorch |",
        "|---|---|---|---|---|",
    ]
    for a, b in zip(rows[::2], rows[1::2], strict=True):
        lines.append(
            f"| {a['epoch']} | {100 * a['top1']:.2f} % "
            f"| {100 * b['top1']:.2f} % | {a['train_loss']:.4f} "
            f"| {b['train_loss']:.4f} |"
        )
    return "\n".join(lines)


def plot(rows):
    """Draws accuracy and training loss per epoch, both engines.

    Args:
        rows: What `read_rows` returns.

    Returns:
        A Matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    styles = {"ours": ("convmixer_tf", "o-"), "pytorch": ("PyTorch", "x--")}
    for engine, (label, style) in styles.items():
        part = [row for row in rows if row["engine"] == engine]
        epochs = [row["epoch"] for row in part]
        accuracy = [100 * row["top1"] for row in part]
        panels[0].plot(epochs, accuracy, style, label=label)
        losses = [row["train_loss"] for row in part]
        panels[1].plot(epochs, losses, style, label=label)
    panels[0].set_ylabel("Top-1 on the test images, %")
    panels[1].set_ylabel("Training loss, nats")
    for panel in panels:
        panel.set_xlabel("Epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
        panel.legend()
    return figure


if __name__ == "__main__":
    app.run(main)
