"""Opens a user's images and splits them if necessary."""

import collections
import dataclasses
import hashlib
import logging
import os
import pathlib

import numpy as np

from convmixer_tf.data.datasets import SPLIT_NAMES
from convmixer_tf.data.datasets import ImageList
from convmixer_tf.data.datasets import find_splits
from convmixer_tf.data.datasets import open_class_folders
from convmixer_tf.data.datasets import open_dataset
from convmixer_tf.data.datasets import open_table
from convmixer_tf.data.table import SEPARATOR
from convmixer_tf.data.table import write_table
from convmixer_tf.data.validation import check_range
from convmixer_tf.files import printable_name

_LOG = logging.getLogger(__name__)

VALIDATION_FRACTION = 0.2


@dataclasses.dataclass(frozen=True)
class Splits:
    """Labeled images for training, validation and test.

    Attributes:
        train: Training images, as from `open_dataset`.
        validation: Images for model selection, as from `open_dataset`.
        test: Images for the final evaluation, as from `open_dataset`, or
            `None`.
        multi_label: Whether an image may have several classes, or none. The
            labels then have the shape (images, classes), with 1 for the classes
            of an image.
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
        """Returns the number of images in each split."""
        return {
            name: len(getattr(self, name))
            for name in SPLIT_NAMES
            if getattr(self, name) is not None
        }

    def counts_per_class(self) -> dict[str, dict[str, int]]:
        """Returns the number of images per split and class."""
        counts = {}
        for split in self.counts():
            dataset = getattr(self, split)
            if isinstance(dataset, ImageList):
                numbers = dataset.targets().sum(axis=0).tolist()
                names = self.class_names
                counts[split] = dict(zip(names, numbers, strict=True))
        return counts

    def digest(self) -> str:
        """Returns a hash of which images are in which split."""
        return hashlib.sha1(repr(self._rows()).encode()).hexdigest()

    def save(self, path: str) -> None:
        """Writes a CSV table of which image is in which split.

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
                continue  # Record files are already split.
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
    """Opens labeled images and splits them if they are not split.

    If there are no validation images, a stratified part of the training images
    is set aside. No file is moved. Files with equal content are never in two
    splits: copies of validation or test images are removed from the training
    images, and copies of test images are removed from the validation images.

    Args:
        data: One of

            - a folder with a folder of images for each class;
            - a folder with `train/CLASS/*.jpg`, and `validation` and `test`
              where they exist;
            - a CSV file with the columns `path` and `label`, and `split` if
              the images are split (see `table.read_table`);
            - any other data that `open_dataset` opens.
        validation_fraction: Fraction of the training images to set aside, if
            there are no validation images.
        seed: Integer, the seed of the split.
        data_dir: As for `open_dataset`.

    Returns:
        `Splits`.

    Raises:
        FileNotFoundError: If the data does not exist.
        ValueError: If the format is wrong, or if there are too few images to
            split.
    """
    check_range("validation_fraction", validation_fraction, 0.01, 0.9)
    parts = _open_parts(os.fspath(data), data_dir)
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
                "A class name must not contain a semicolon, which separates "
                "labels in a table, and must not start or end with a space. "
                f"Rename the folder. Received: {name!r} in `{data}`"
            )
    if validation is not None:
        validation = _without(validation, [test], "validation")
    train = _without(train, [validation, test], "training")
    if validation is not None:
        return Splits(train, validation, test, train.multi_label)
    train, validation = divide(train, validation_fraction, seed)
    return Splits(train, validation, test, train.multi_label)


def _open_parts(data, data_dir):
    """Opens the existing splits."""
    if os.path.isfile(data):
        return open_table(data)
    folder = pathlib.Path(data)
    found = find_splits(data, SPLIT_NAMES, data_dir)
    if not found and folder.is_dir():
        return {"train": open_class_folders(folder)}
    return {
        name: open_dataset(data, split, data_dir=data_dir)
        for name, split in found.items()
    }


def _without(dataset, others, name):
    """Removes images that are also in other splits."""
    others = [x for x in others if isinstance(x, ImageList)]
    if not others or not isinstance(dataset, ImageList):
        return dataset
    known = {digest for other in others for digest in _digests(other)}
    kept = [i for i, x in enumerate(_digests(dataset)) if x not in known]
    if len(kept) == len(dataset):
        return dataset
    _LOG.warning(
        "Removed %d of %d %s images: another split has files with the same "
        "content.",
        *(len(dataset) - len(kept), len(dataset), name),
    )
    if not kept:
        raise ValueError(
            f"All {name} images are also in another split. Remove them from "
            "one of the two."
        )
    return dataset.select(kept)


def _digests(dataset):
    """Returns a hash of each image's content."""
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
    """Sets aside a stratified part of the images.

    Args:
        dataset: An `ImageList`.
        fraction: Fraction of the images to set aside.
        seed: Integer.

    Returns:
        Two `ImageList`s: the rest, and the images that were set aside.

    Raises:
        ValueError: If there are too few images.
    """
    if not isinstance(dataset, ImageList):
        raise ValueError(
            "The data set is too large to be split here. Expected a split "
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
        # Small classes take turns, but a class of two images always gives one.
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
            f"There are too few images to set some aside: {len(dataset)} in "
            f"{len(dataset.class_names)} classes. At least one class needs two "
            "images with different content."
        )
    _LOG.info(
        "Set aside %d of %d images for validation.", aside.sum(), len(dataset)
    )
    return (
        dataset.select(np.flatnonzero(~aside)),
        dataset.select(np.flatnonzero(aside)),
    )


def _warn_of_contradictions(dataset, targets, copies):
    """Warns about images with equal content and different labels."""
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
            "%d images have the same content as another image but a different "
            "label. The first pair: %s and %s.",
            *(len(pairs), *names),
        )
