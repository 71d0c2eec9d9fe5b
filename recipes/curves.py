"""Draws the learning curves of a run from its log."""

import csv
import os
import pathlib

import matplotlib.figure
import matplotlib.ticker
import quiet_import  # noqa: F401  Before TensorFlow is imported.
from tensorflow.io import gfile

from convmixer_tf.files import replaced


def read_log(folder):
    """Reads the log of a run.

    Args:
        folder: Path of the run's folder.

    Returns:
        Dictionary from the names of the columns to lists of numbers. Unknown
        values are NaN.

    Raises:
        FileNotFoundError: If there is no log.
        ValueError: If it has no epochs.
    """
    path = os.path.join(folder, "log.csv")
    if not gfile.exists(path):
        raise FileNotFoundError(
            f"`{path}` does not exist. A run writes it after its first epoch."
        )
    with gfile.GFile(path) as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"`{path}` has no epochs.")
    return {
        name: [float(row[name] or "nan") for row in rows] for name in rows[0]
    }


def draw(logs):
    """Draws accuracy and losses by epoch.

    Args:
        logs: Dictionary from names to logs from `read_log`. A name is a prefix
            of the legend; it may be empty.

    Returns:
        A `matplotlib.figure.Figure` with two axes.
    """
    figure = matplotlib.figure.Figure(figsize=(10, 4.8), layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    for number, (name, log) in enumerate(logs.items()):
        prefix = f"{name}: " if name else ""
        top1 = [100 * x for x in log["top1"]]
        final = f"{top1[-1]:.2f} % after {log['epoch'][-1]:.0f}"
        style = {"color": f"C{number}"}
        if len(top1) <= 25:
            style["marker"] = "."  # A line needs at least two points.
        accuracy.plot(log["epoch"], top1, label=prefix + final, **style)
        loss.plot(
            log["epoch"], log["loss"], label=f"{prefix}evaluation", **style
        )
        loss.plot(
            log["epoch"],
            log["train_loss"],
            linestyle=":",
            label=f"{prefix}training, augmented",
            **style,
        )
    accuracy.set(ylabel="top-1 on evaluation images, %", ylim=(None, 100))
    loss.set(ylabel="cross-entropy", ylim=(0, 1.1 * loss.dataLim.y1))
    for axes in (accuracy, loss):
        axes.set(xlabel="epoch", xlim=(0, None))
        axes.xaxis.set_major_locator(
            matplotlib.ticker.MaxNLocator(integer=True)
        )
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def draw_run(folder):
    """Draws the curves of one run as `curve.png` in its folder.

    Args:
        folder: Path of the run's folder.

    Returns:
        Path of the picture.
    """
    log = read_log(folder)
    best = max(range(len(log["top1"])), key=log["top1"].__getitem__)
    figure = draw({"": log})
    figure.suptitle(
        f"{pathlib.Path(folder).absolute().name}: "
        f"{100 * log['top1'][best]:.2f} % at best, after epoch "
        f"{log['epoch'][best]:.0f}"
    )
    path = os.path.join(folder, "curve.png")
    with replaced(path) as unfinished:
        figure.savefig(unfinished, dpi=110)
    return path
