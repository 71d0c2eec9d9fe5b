"""Draws how CIFAR-10 runs went, beside what the authors' log came to.

    python recipes/plot_cifar10.py --run "25 epochs=runs/cifar10" \
        --output curves.png

`--run NAME=FOLDER` is a folder of `train_cifar10.py`, finished or not, or one
that holds its `log.csv`; repeat it for several. Of runs that started from one
another it is NAME=FIRST,SECOND: their epochs are counted on. The authors'
marks are those of the module's docstring there: 92.60 % after 25 epochs, and
"more than 94 %" after 100.

Time: seconds.
"""

import os
import textwrap

import curves
import launch
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
    "run", None, "NAME=FOLDER[,FOLDER ...]; repeatable.", required=True
)
_OUTPUT = flags.DEFINE_string("output", "curves.png", "PNG file to write.")
_REMARK = flags.DEFINE_string(
    "remark", "", "What else differs, a sentence to stand under the picture."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace what is there.")


def parse_runs(texts):
    """Reads `--run`.

    Args:
        texts: List of `NAME=FOLDER[,FOLDER ...]`.

    Returns:
        Dictionary from names to what `curves.read_log` returns.

    Raises:
        FileNotFoundError: If a folder has no log.
        ValueError: If a text has another form.
    """
    logs = {}
    for text in texts:
        name, separator, folders = text.rpartition("=")
        if not (name and separator and folders):
            raise ValueError(
                f"--run must be NAME=FOLDER[,FOLDER ...]. Received: {text}"
            )
        logs[name] = _one_after_another(
            [curves.read_log(folder) for folder in folders.split(",")]
        )
    return logs


def _one_after_another(logs):
    joined = {name: [] for name in logs[0]}
    for log in logs:
        before = joined["epoch"][-1] if joined["epoch"] else 0
        log["epoch"] = [epoch + before for epoch in log["epoch"]]
        for name, column in joined.items():
            column += log[name]
    return joined


def draw(logs, remark=""):
    """Draws accuracy and losses by epoch, beside the authors' marks.

    Args:
        logs: What `parse_runs` returns.
        remark: String, a sentence to stand under the picture.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = curves.draw(logs)
    accuracy = figure.axes[0]
    longest = max(log["epoch"][-1] for log in logs.values())
    for epochs, percent, label in AUTHORS:
        if epochs <= max(longest, AUTHORS[0][0]):
            accuracy.plot(
                epochs, percent, "k*" if epochs == 25 else "k^", label=label
            )
    accuracy.legend()
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
