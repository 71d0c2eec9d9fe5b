"""Draws how CIFAR-10 runs went, beside what the authors' log came to.

    python recipes/plot_cifar10.py --run "25 epochs=runs/cifar10" \
        --output curves.png

`--run NAME=FOLDER` is a folder of `train_cifar10.py`, finished or not, or one
that holds its `log.csv`; repeat it for several. The authors' marks are those
of the module's docstring there: 92.60 % after 25 epochs, and "more than 94 %"
after 100.

Time: seconds.
"""

import csv
import os
import pathlib
import textwrap

import launch
import matplotlib.figure
import run_flags
from absl import flags

from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced

# https://github.com/locuslab/convmixer-cifar10: epochs, percent, in words.
AUTHORS = (
    (25, 92.60, "authors' log, 25 epochs: 92.60 %"),
    (100, 94.0, "authors, 100 epochs: more than 94 %"),
)
DIFFERENCES = (
    "What differs from the authors' run: 97 updates an epoch in place of 98; "
    "timm's RandAugment in place of torchvision's."
)

_RUN = flags.DEFINE_multi_string(
    "run", None, "NAME=FOLDER of a run; repeatable.", required=True
)
_OUTPUT = flags.DEFINE_string("output", "curves.png", "PNG file to write.")
_REMARK = flags.DEFINE_string(
    "remark", "", "What else differs, a sentence to stand under the picture."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace what is there.")


def read_log(folder):
    """Reads the table that a run leaves.

    Args:
        folder: Path of the run's folder.

    Returns:
        Dictionary from the names of the columns to lists of numbers.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If no epoch is in it.
    """
    path = pathlib.Path(folder) / "log.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no `{path}`: a run writes it after its first epoch."
        )
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"`{path}` has no epoch in it.")
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def parse_runs(texts):
    """Reads `--run`.

    Args:
        texts: List of `NAME=FOLDER`.

    Returns:
        Dictionary from names to what `read_log` returns.

    Raises:
        FileNotFoundError: If a folder has no log.
        ValueError: If a text has another form.
    """
    logs = {}
    for text in texts:
        name, separator, folder = text.rpartition("=")
        if not (name and separator and folder):
            raise ValueError(f"--run must be NAME=FOLDER. Received: {text}")
        logs[name] = read_log(folder)
    return logs


def draw(logs, remark=""):
    """Draws accuracy and losses by epoch.

    Args:
        logs: What `parse_runs` returns.
        remark: String, a sentence to stand under the picture.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = matplotlib.figure.Figure(figsize=(10, 4.8), layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    longest = max(log["epoch"][-1] for log in logs.values())
    for number, (name, log) in enumerate(logs.items()):
        color = f"C{number}"
        top1 = [100 * x for x in log["top1"]]
        label = f"{name}: {top1[-1]:.2f} % after {log['epoch'][-1]:.0f}"
        accuracy.plot(log["epoch"], top1, color=color, label=label)
        loss.plot(log["epoch"], log["loss"], color=color, label=f"{name}: test")
        loss.plot(
            log["epoch"],
            log["train_loss"],
            color=color,
            linestyle=":",
            label=f"{name}: training, augmented",
        )
    for epochs, percent, label in AUTHORS:
        if epochs <= max(longest, AUTHORS[0][0]):
            accuracy.plot(
                epochs, percent, "k*" if epochs == 25 else "k^", label=label
            )
    accuracy.set(xlabel="epoch", ylabel="test images recognised, %")
    accuracy.set(ylim=(None, 100))
    loss.set(xlabel="epoch", ylabel="cross entropy", ylim=(0, None))
    for axes in (accuracy, loss):
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right" if axes is accuracy else "upper right")
    figure.suptitle("ConvMixer-256/8 on CIFAR-10")
    text = textwrap.fill(f"{DIFFERENCES} {remark}".strip(), 160)
    figure.supxlabel(text, fontsize=8, x=0.01, ha="left")
    return figure


def main(argv):
    """Draws the runs that the flags name."""
    run_flags.begin(argv)
    check_destination(_OUTPUT.value, (".png",), _OVERWRITE.value)
    figure = draw(parse_runs(_RUN.value), _REMARK.value)
    with replaced(_OUTPUT.value) as unfinished:
        figure.savefig(unfinished, dpi=110)
    print(os.path.abspath(_OUTPUT.value))


if __name__ == "__main__":
    launch.run(main)
