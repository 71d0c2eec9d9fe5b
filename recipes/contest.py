"""Trains several models alike, each in its folder, and sums them up.

What `compare.py` and `sweep.py` share: flags, training, tables.
"""

import csv
import dataclasses
import io
import json
import math
import os
import pathlib
from collections.abc import Callable

import run_flags
import tensorflow as tf
from absl import flags
from absl import logging

from convmixer_tf import data
from convmixer_tf.analysis import count_macs
from convmixer_tf.files import dump_json
from convmixer_tf.files import write_text
from convmixer_tf.timing import cpu
from convmixer_tf.training import TrainConfig
from convmixer_tf.training import steps_per_epoch
from convmixer_tf.training import train_classifier
from convmixer_tf.training.classifier import check_datasets
from convmixer_tf.training.classifier import data_notes
from convmixer_tf.training.run_log import check_run
from convmixer_tf.training.run_log import environment

AUGMENTATIONS = {
    # What small networks on CIFAR-10 have had since ResNet.
    "shift": data.Recipe(crop=data.PadAndCrop()),
    **data.RECIPES,
}

_DATA = flags.DEFINE_string(
    "data", "cifar10", "Folder, or name in tensorflow-datasets."
)
OUTPUT = flags.DEFINE_string("output", None, "Folder of all runs.")
EPOCHS = flags.DEFINE_integer("epochs", 5, "Passes over the images.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images per update.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.002, "The peak.")
_WEIGHT_DECAY = flags.DEFINE_float("weight_decay", 0.02, "Times the rate.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 32, "Side, in pixels.", 1)
_AUGMENTATION = flags.DEFINE_enum(
    "augmentation",
    "shift",
    AUGMENTATIONS,
    "What happens to training images; shift: 4 pixels at most, and a flip.",
)
_THREADS = flags.DEFINE_integer(
    "threads", None, "TensorFlow's threads. Default: one for each core.", 1
)


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A model that takes part.

    Attributes:
        name: Of its folder, and in tables.
        settings: Dictionary, as JSON can hold it, that says which model it is.
        build: Function of a `classifier_activation` that builds it.
    """

    name: str
    settings: dict
    build: Callable


@dataclasses.dataclass(frozen=True)
class Contest:
    """What is the same for all: data, settings, folder."""

    train_set: data.ImageList | data.ImageRecords
    eval_set: data.ImageList | data.ImageRecords
    config: TrainConfig
    recipe: data.Recipe
    image_size: int  # pixels
    folder: pathlib.Path
    strategy: tf.distribute.Strategy

    @property
    def input_shape(self):
        """Shape of an image."""
        return (self.image_size, self.image_size, 3)

    @property
    def classes(self):
        """The number of classes."""
        return len(self.train_set.class_names)


def open_contest():
    """Opens the data and collects the settings, as the flags say.

    Returns:
        A `Contest`.

    Raises:
        ValueError: If something is missing or does not go together.
    """
    if _THREADS.value:
        tf.config.threading.set_intra_op_parallelism_threads(_THREADS.value)
        tf.config.threading.set_inter_op_parallelism_threads(_THREADS.value)
    strategy = run_flags.strategy()
    train_set, eval_set = run_flags.open_datasets(_DATA.value, "train", "test")
    config = TrainConfig(
        epochs=EPOCHS.value,
        batch_size=_BATCH_SIZE.value,
        learning_rate=_LEARNING_RATE.value,
        schedule="cosine",
        warmup_epochs=EPOCHS.value / 10,
        epsilon=1e-8,
        weight_decay=_WEIGHT_DECAY.value,
        **run_flags.settings(steps_per_epoch(train_set, _BATCH_SIZE.value)),
    )
    check_datasets(config, train_set, eval_set)
    return Contest(
        train_set,
        eval_set,
        config,
        AUGMENTATIONS[_AUGMENTATION.value],
        _IMAGE_SIZE.value,
        pathlib.Path(OUTPUT.value),
        strategy,
    )


def check_geometry(patch_size, kernel_size=1):
    """Checks that a model's patches and kernels suit the images.

    Args:
        patch_size: Integer, side of a patch, in pixels.
        kernel_size: Integer, side of a kernel, in patches.

    Raises:
        ValueError: If patches don't tile an image, or if part of a kernel
            would never meet anything but padding.
    """
    image_size = _IMAGE_SIZE.value
    if patch_size < 1 or image_size % patch_size:
        raise ValueError(
            f"Patches must divide the images, of {image_size} pixels. "
            f"Received: a patch of {patch_size}"
        )
    widest = 2 * (image_size // patch_size) - 1
    if not 1 <= kernel_size <= widest:
        raise ValueError(
            f"Kernels for {image_size // patch_size} patches a side must have "
            f"a side of at least 1 and at most {widest}: the rest would see "
            f"padding alone. Received: a kernel of {kernel_size} on patches "
            f"of {patch_size}"
        )


def trainable_parameters(model):
    """Counts a model's trainable parameters."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def costs(contestant):
    """Says what a model costs, as a row of the table begins."""
    model = contestant.build(None)
    return {
        "name": contestant.name,
        **contestant.settings,
        "parameters": trainable_parameters(model),
        "macs": count_macs(model),
    }


def train_all(contest, contestants):
    """Trains each model, or goes on where it was stopped.

    Whatever a `Contest.folder` has of an earlier call is used: the summaries
    of runs that came to their end, the checkpoints of one that did not.

    Args:
        contest: A `Contest`.
        contestants: List of `Contestant`, of different names.

    Returns:
        List of a dictionary for each: the columns of its row in the table.

    Raises:
        ValueError: If the folder has something of other settings. That is
            found out before anything is trained.
    """
    rows = [costs(contestant) for contestant in contestants]
    for contestant in contestants:
        check_run(
            contest.folder / contestant.name,
            contest.config,
            _notes(contest, contestant),
        )
    for contestant, row in zip(contestants, rows, strict=True):
        summary = _train(contest, contestant)
        row.update(
            {key: summary["last"][key] for key in ("top1", "top5", "loss")},
            train_loss=summary["last"]["train_loss"],
            training_seconds=summary["seconds"],
        )
    return rows


def _notes(contest, contestant):
    """Collects what a run's result depends on besides its `TrainConfig`."""
    return {
        **data_notes(contest.train_set, contest.recipe, contest.image_size),
        "model": contestant.settings,
    }


def _train(contest, contestant):
    folder = contest.folder / contestant.name
    if (folder / "summary.json").exists():
        logging.info("%s is at its end.", contestant.name)
        return json.loads((folder / "summary.json").read_text())
    logging.info("%s begins.", contestant.name)
    _, summary = train_classifier(
        contest.config,
        contestant.build,
        contest.train_set,
        contest.eval_set,
        contest.recipe,
        contest.image_size,
        folder,
        contest.strategy,
        crop_fraction=1.0,
        notes={"model": contestant.settings},
    )
    return summary


def write_results(contest, name, rows, notes=None):
    """Writes a table as JSON and as CSV.

    Args:
        contest: A `Contest`, whose folder gets the files.
        name: The files' name without suffix.
        rows: List of dictionaries of the same keys.
        notes: Dictionary of what else to note in the JSON file.
    """
    content = {
        "config": dataclasses.asdict(contest.config),
        "recipe": dataclasses.asdict(contest.recipe),
        "images": [len(contest.train_set), len(contest.eval_set)],
        "machine": {**cpu(), "cores": os.cpu_count()},
        **{name: environment()[name] for name in ("tensorflow", "keras")},
        **(notes or {}),
        "rows": rows,
    }
    dump_json(contest.folder / f"{name}.json", content)
    text = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(contest.folder / f"{name}.csv", text.getvalue())


def markdown(rows, columns):
    """Formats a table.

    Args:
        rows: List of dictionaries.
        columns: Dictionary from headings to a function from a row to the text
            of its cell.

    Returns:
        String, in Markdown.
    """
    lines = [list(columns), ["---"] * len(columns)]
    lines += [[cell(row) for cell in columns.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
