"""Opens images of one's own: divided into splits, or to be divided here."""

import collections
import dataclasses
import hashlib
import logging
import os
import pathlib

import numpy as np
import tensorflow as tf

from convmixer_tf.data.datasets import ImageList
from convmixer_tf.data.datasets import find_splits
from convmixer_tf.data.datasets import open_class_folders
from convmixer_tf.data.datasets import open_dataset
from convmixer_tf.data.datasets import read_if_small
from convmixer_tf.data.table import SEPARATOR
from convmixer_tf.data.table import read_table
from convmixer_tf.data.table import write_table
from convmixer_tf.data.validation import check_range
from convmixer_tf.files import printable_name

_LOG = logging.getLogger(__name__)

# What folders and tables call each split.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}
VALIDATION_FRACTION = 0.2


@dataclasses.dataclass(frozen=True)
class Splits:
    """Labeled images to train on, to choose by, and to report on.

    Attributes:
        train: What `open_dataset` returns: the training images.
        validation: The same, of the images that choices are made by.
        test: The same, of images that decide nothing, or `None`.
        multi_label: Whether an image may have several classes, or none. The
            labels then have the shape (images, classes), 1 for the classes of
            an image.
    """

    train: ImageList
    validation: ImageList
    test: ImageList | None = None
    multi_label: bool = False

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the outputs."""
        return self.train.class_names

    def counts(self) -> dict[str, int]:
        """Returns how many images each split has."""
        return {
            name: len(getattr(self, name))
            for name in SPLIT_NAMES
            if getattr(self, name) is not None
        }

    def counts_per_class(self) -> dict[str, dict[str, int]]:
        """Returns how many images of each class each split has."""
        counts = {}
        for split in self.counts():
            dataset = getattr(self, split)
            if isinstance(dataset, ImageList):
                numbers = dataset.targets().sum(axis=0).tolist()
                names = self.class_names
                counts[split] = dict(zip(names, numbers, strict=True))
        return counts

    def digest(self) -> str:
        """Identifies which images are in which split."""
        return hashlib.sha1(repr(self._rows()).encode()).hexdigest()

    def save(self, path: str) -> None:
        """Writes which image is in which split, as a table (CSV).

        Args:
            path: Path of the file, which is replaced. `open_splits` reads it.
        """
        write_table(path, self._rows())

    def _rows(self):
        """Lists the path, the labels and the split of each image."""
        rows = []
        for split in self.counts():
            dataset = getattr(self, split)
            if not isinstance(dataset, ImageList):
                continue  # Of record files, which are divided already.
            names = map(os.fsdecode, dataset.names.numpy())
            targets = dataset.targets()
            for name, target in zip(names, targets, strict=True):
                if os.path.isfile(name):
                    name = os.path.abspath(name)
                labels = [self.class_names[i] for i in np.flatnonzero(target)]
                rows.append((name, labels, split))
        return rows


def open_splits(
    data: str,
    *,
    validation_fraction: float = VALIDATION_FRACTION,
    seed: int = 0,
    data_dir: str | None = None,
) -> Splits:
    """Opens labeled images, and divides them if they are not divided.

    Without validation images, a part of the training images is set aside, of
    each class alike. No file is moved. Files of equal content are never on
    both sides: copies of validation or test images are left out of the
    training images, and copies of test images out of the validation images.

    Args:
        data: One of

            - a folder with a folder of images for each class;
            - a folder with `train/CLASS/*.jpg`, and `validation` and `test`
              where they exist;
            - a CSV file with the columns `path` and `label`, and `split` if
              the images are divided (see `table.read_table`);
            - whatever else `open_dataset` opens.
        validation_fraction: Fraction of the training images to set aside, if
            there are no validation images.
        seed: Integer, seed of that division.
        data_dir: As for `open_dataset`.

    Returns:
        `Splits`.

    Raises:
        FileNotFoundError: If the data are not there.
        ValueError: If they have another form, or are too few to divide.
    """
    check_range("validation_fraction", validation_fraction, 0.01, 0.9)
    parts, multi_label = _open_parts(os.fspath(data), data_dir)
    train, validation, test = (parts.get(name) for name in SPLIT_NAMES)
    if train is None:
        raise ValueError(
            f"There are no training images in `{data}`. Expected a folder for "
            "each class, or `train/CLASS/*.jpg`; in a table, `train` in the "
            f"column `split`. Found: {', '.join(parts) or 'nothing'}"
        )
    for name in train.class_names:
        if SEPARATOR in name or name != name.strip():
            raise ValueError(
                "The name of a class must have no semicolon, which separates "
                "labels in a table, and no space at its ends. Rename the "
                f"folder. Received: {name!r} in `{data}`"
            )
    if validation is not None:
        validation = _without(validation, [test], "validation")
    train = _without(train, [validation, test], "training")
    if validation is not None:
        return Splits(train, validation, test, multi_label)
    train, validation = divide(train, validation_fraction, seed)
    return Splits(train, validation, test, multi_label)


def _open_parts(data, data_dir):
    """Opens the splits that there are, and says if labels are several."""
    if os.path.isfile(data):
        return _open_table(data)
    folder = pathlib.Path(data)
    found = find_splits(data, SPLIT_NAMES, data_dir)
    if not found and folder.is_dir():
        return {"train": open_class_folders(folder)}, False
    parts = {
        name: open_dataset(data, split, data_dir=data_dir)
        for name, split in found.items()
    }
    return parts, False


def _open_table(path):
    """Opens the splits of a table; all is for training if it names none."""
    rows = read_table(path)
    names = tuple(sorted({label for _, labels, _ in rows for label in labels}))
    multi_label = any(len(labels) != 1 for _, labels, _ in rows)
    parts = collections.defaultdict(list)
    for image, labels, split in rows:
        parts[_split_of(split, path)].append((image, labels))
    index = {name: i for i, name in enumerate(names)}

    def dataset(pairs):
        paths = [image for image, _ in pairs]
        indices = [[index[x] for x in labels] for _, labels in pairs]
        if multi_label:
            targets = np.zeros((len(pairs), len(names)), "int64")
            for row, known in zip(targets, indices, strict=True):
                row[known] = 1
        else:
            targets = np.array(indices, "int64")[:, 0]
        return ImageList(
            names=tf.constant([os.fsencode(x) for x in paths]),
            labels=tf.constant(targets),
            class_names=names,
            contents=read_if_small(paths),
        )

    return {x: dataset(pairs) for x, pairs in parts.items()}, multi_label


def _split_of(text, path):
    if text is None:
        return "train"
    for name, words in SPLIT_NAMES.items():
        if text.lower() in words:
            return name
    raise ValueError(
        f"The column `split` of `{path}` must be of {', '.join(SPLIT_NAMES)}. "
        f"Received: {text!r}"
    )


def _without(dataset, others, name):
    """Leaves out images that are in other splits, too."""
    others = [x for x in others if isinstance(x, ImageList)]
    if not others or not isinstance(dataset, ImageList):
        return dataset
    known = {digest for other in others for digest in _digests(other)}
    kept = [i for i, x in enumerate(_digests(dataset)) if x not in known]
    if len(kept) == len(dataset):
        return dataset
    _LOG.warning(
        "Left out %d of %d %s images: files of the same content are in "
        "another split.",
        *(len(dataset) - len(kept), len(dataset), name),
    )
    if not kept:
        raise ValueError(
            f"All {name} images are in another split, too. Remove them from "
            "one of the two."
        )
    return dataset.select(kept)


def _digests(dataset):
    """Identifies the content of each image."""
    contents = dataset.contents
    if contents is None:
        contents = (
            pathlib.Path(os.fsdecode(x)).read_bytes()
            for x in dataset.names.numpy()
        )
    else:
        contents = contents.numpy()
    return [hashlib.sha1(x).digest() for x in contents]


def divide(dataset, fraction, seed):
    """Sets a part of the images aside, of each class alike.

    Args:
        dataset: An `ImageList`.
        fraction: Fraction of the images to set aside.
        seed: Integer.

    Returns:
        Two `ImageList`s: the rest, and what was set aside.

    Raises:
        ValueError: If there are too few images.
    """
    if not isinstance(dataset, ImageList):
        raise ValueError(
            "The data are too large to be divided here. Expected a split "
            "`validation`."
        )
    targets = dataset.targets()
    copies = collections.defaultdict(list)
    for i, digest in enumerate(_digests(dataset)):
        copies[digest].append(i)
    _warn_of_contradictions(dataset, targets, copies.values())
    groups = collections.defaultdict(list)
    for same in copies.values():
        groups[targets[same[0]].tobytes()].append(same)
    rng = np.random.default_rng(seed)
    chosen, owed = [], 0.0
    for _, group in sorted(groups.items()):
        # Of classes of few images by turns, but of two images always one.
        owed += fraction * len(group)
        count = round(owed)
        if targets.sum() == len(targets):
            count = max(count, 1)
        count = min(count, len(group) - 1)
        owed -= count
        chosen += [group[i] for i in rng.permutation(len(group))[:count]]
    aside = np.zeros(len(dataset), bool)
    aside[[i for same in chosen for i in same]] = True
    lost = (targets[~aside].sum(0) == 0) & (targets.sum(0) > 0)
    aside[targets[:, lost].any(axis=1)] = False
    if not aside.any():
        raise ValueError(
            f"There are too few images to set some aside: {len(dataset)} of "
            f"{len(dataset.class_names)} classes. At least one class needs "
            "two images of different content."
        )
    _LOG.info(
        "Set %d of %d images aside to choose by.", aside.sum(), len(dataset)
    )
    return (
        dataset.select(np.flatnonzero(~aside)),
        dataset.select(np.flatnonzero(aside)),
    )


def _warn_of_contradictions(dataset, targets, copies):
    """Warns of images of equal content and different labels."""
    pairs = [
        (same[0], i)
        for same in copies
        for i in same[1:]
        if (targets[i] != targets[same[0]]).any()
    ]
    if pairs:
        names = [
            printable_name(os.fsdecode(dataset.names[i].numpy()))
            for i in pairs[0]
        ]
        _LOG.warning(
            "%d images have the content of another image, but not its label; "
            "the first pair: %s and %s.",
            *(len(pairs), *names),
        )
