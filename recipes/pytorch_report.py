"""What two runs of `compare_pytorch.py` come to: CSV, JSON and a picture."""

import csv
import io
import json
import os
import pathlib
import re
import statistics
import time

import tensorflow as tf

from convmixer_tf.files import dump_json
from convmixer_tf.files import replaced

ENGINES = ("ours", "pytorch")
COLUMNS = ("epoch", "engine", "train_loss", "test_loss", "top1", "cpu_seconds")
EARLY = 100  # updates


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
