"""Opens labeled images: folders, tables, TFRecords, prepared data, digits.

There are two kinds of storage with the same members. `ImageList` holds images
by number, as files or as bytes in memory. Its order is a true permutation, and
starting in the middle takes no time. `records.ImageRecords` reads TFRecord
files that are too large for memory in sequence.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from convmixer_tf.data.pillow import pillow_extensions
from convmixer_tf.data.pillow import with_pillow
from convmixer_tf.data.records import find_record_files
from convmixer_tf.data.records import open_records
from convmixer_tf.data.records import read_record
from convmixer_tf.data.records import size_of_file
from convmixer_tf.data.table import read_table
from convmixer_tf.data.unreadable import why_left_out
from convmixer_tf.files import PathLike
from convmixer_tf.files import is_remote
from convmixer_tf.files import printable_name
from convmixer_tf.files import read_lines
from convmixer_tf.validation import check_positive_integer

if TYPE_CHECKING:
    from convmixer_tf.data.records import ImageRecords

_LOG = logging.getLogger(__name__)

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
EXTENSIONS = (*_JPEG, ".png", ".bmp", ".gif", ".webp")

# Files that operating systems add to folders, beside those with a leading dot.
_HIDDEN = ("__MACOSX", "Thumbs.db", "desktop.ini")

# Names of each split in folders and tables.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}
_SPLITS = {word: x for x, words in SPLIT_NAMES.items() for word in words}

# Encoded data sets up to this size are kept in memory.
CACHE_BYTES = 2**30


@dataclasses.dataclass(frozen=True)
class ImageList:
    """Images that are accessed by number.

    Attributes:
        names: String tensor of paths or similar names, for messages.
        labels: Class index of each image, an int64 tensor of shape (images,).
            For multi-label data, the shape is (images, classes), with 1 for the
            classes of an image.
        class_names: Names of the classes, by index.
        contents: Encoded images, a string tensor, or None to read the files
            in `names`.
    """

    names: tf.Tensor
    labels: tf.Tensor
    class_names: tuple[str, ...]
    contents: tf.Tensor | None = None

    def __len__(self):
        return len(self.names)

    @property
    def multi_label(self):
        """Whether an image may have several classes, or none."""
        return self.labels.shape.rank == 2

    def repeated(self, times):
        """Returns a data set that repeats the images.

        An epoch has an overhead of some seconds. With few small images, an
        epoch should consist of several passes.

        Args:
            times: Integer, the number of repetitions.
        """
        check_positive_integer("times", times)
        return self.select(np.tile(np.arange(len(self)), times))

    def select(self, indices):
        """Returns some of the images, as a data set.

        Args:
            indices: Integer array of shape (images,).
        """
        indices = np.asarray(indices, np.int64)
        contents = self.contents
        return dataclasses.replace(
            self,
            names=tf.gather(self.names, indices),
            labels=tf.gather(self.labels, indices),
            contents=None if contents is None else tf.gather(contents, indices),
        )

    def targets(self):
        """Returns an int64 array, (images, classes), with 1 for its classes.

        For multi-label data, it equals `labels`.
        """
        labels = self.labels.numpy()
        if labels.ndim == 2:
            return labels
        return np.eye(len(self.class_names), dtype=np.int64)[labels]

    def examples(self, seed=None, epoch=0, repeats=1, skip=0):
        """Lists the images of an epoch without reading them.

        Args:
            seed: Integer. None for the stored order, without repeats.
            epoch: Number of the epoch; each has its own order.
            repeats: How many times in a row each image appears (repeated
                augmentation). The number of examples stays the same.
            skip: Number of examples to skip at the start.

        Returns:
            A `tf.data.Dataset` of dictionaries: `"key"`, an int64 that is
            unique in the epoch; `"name"`; `"record"`, the argument of `read`.
        """
        count = len(self)
        keys = np.arange(count, dtype="int64")
        if seed is not None:
            order = np.random.default_rng([seed, epoch]).permutation(count)
            keys = order[:, None] * repeats + np.arange(repeats)
            keys = keys.reshape(-1)[:count]
        dataset = tf.data.Dataset.from_tensor_slices(keys[skip:])
        return dataset.map(
            lambda key: {
                "key": key,
                "name": self.names[key // repeats],
                "record": key // repeats,
            }
        )

    def read(self, record):
        """Reads one image.

        Args:
            record: The `"record"` of an example.

        Returns:
            The encoded image, a scalar string tensor, and its label, int64.
        """
        if self.contents is None:
            encoded = tf.io.read_file(self.names[record])
        else:
            encoded = self.contents[record]
        return with_pillow(encoded), self.labels[record]


def open_dataset(
    name: str,
    split: str,
    *,
    data_dir: PathLike | None = None,
    download: bool = False,
) -> ImageList | ImageRecords:
    """Opens a labeled image data set.

    Args:
        name: One of

            - `"digits"`: scikit-learn's 1,797 handwritten digits of 8 x 8
              pixels, for offline experiments;
            - a folder with `split/class/*.jpg`, also in folders inside `class`,
              with one of the suffixes in `EXTENSIONS`;
            - a table (CSV) with the columns `path`, `label` and `split` (see
              `table.read_table`). An image may have several labels;
            - a folder that tensorflow-datasets prepared;
            - a folder of TFRecords, compressed or not, whose names contain the
              split as a word (see `records.find_record_files`). The features
              are `image` and `label`, or `image/encoded` and
              `image/class/label`. A file `labels.txt` has the class names, one
              a line, in the order of the labels;
            - one of the latter two in an object store, such as
              `gs://bucket/folder`. Unless tensorflow-datasets prepared the
              records, they are counted by reading them;
            - the name of a data set in tensorflow-datasets, with the features
              `image` and `label`, such as `"cifar10"` or `"imagenet2012"`.
        split: Name of the split, such as `"train"` or `"test"`.
        data_dir: Data directory of tensorflow-datasets.
        download: Whether tensorflow-datasets may download and prepare data.

    Returns:
        An `ImageList` or `ImageRecords`. Both have `class_names` and a length.

    Raises:
        FileNotFoundError: If the data does not exist.
        ValueError: If the split is unknown or the format is wrong.
        ImportError: If a library that the data set needs is missing.

    Example:
    ```python
    dataset = open_dataset("digits", "train")
    len(dataset), len(dataset.class_names)  # (1437, 10)
    ```
    """
    if name == "digits":
        return _open_digits(split)
    if is_remote(name):
        return _open_remote(name, split)
    folder = pathlib.Path(name)
    if folder.is_file():
        return _open_split_of_table(name, split)
    if not folder.is_dir():
        return _open_tfds(name, split, data_dir, download)
    if (folder / "dataset_info.json").exists():
        builder = _import_tfds().builder_from_directory(str(folder))
        return _open_builder(builder, split)
    if (folder / split).is_dir():
        return open_class_folders(folder / split, _find_classes(folder, split))
    files = find_record_files(folder, split)
    if files:
        return _open_records(files, _read_class_names(folder))
    raise ValueError(_explain_missing(folder, split))


def hold_out(dataset: ImageList, held_out: int) -> tuple[ImageList, ImageList]:
    """Splits images into a training and a validation set.

    The split depends only on the number of images and on `held_out`, so that
    runs with different seeds can be compared.

    Args:
        dataset: An `ImageList`. `open_dataset` returns one for data of up to 1
            GiB and for a folder of images.
        held_out: Integer, the number of images to hold out.

    Returns:
        Two `ImageList`: the training images and the held-out images.

    Raises:
        ValueError: If the images can't be accessed by number, or if there are
            not more than `held_out`.
    """
    check_positive_integer("held_out", held_out)
    if not isinstance(dataset, ImageList):
        raise ValueError(
            "Images in TFRecords above 1 GiB can't be held out because they "
            "are read in sequence. Write them as two splits."
        )
    if held_out >= len(dataset):
        raise ValueError(
            f"Argument `held_out` must be below {len(dataset)}, the number of "
            f"images. Received: held_out={held_out}"
        )
    order = np.random.default_rng(0).permutation(len(dataset))
    return (
        dataset.select(np.sort(order[held_out:])),
        dataset.select(np.sort(order[:held_out])),
    )


def find_splits(name, words, data_dir=None):
    """Finds the names of the splits of a data set.

    Args:
        name: As for `open_dataset`.
        words: Dictionary from each split to its possible names.
        data_dir: As for `open_dataset`.

    Returns:
        Dictionary from each split that exists to its name.
    """
    folder = pathlib.Path(name)
    if name == "digits":
        there = {"train", "test"}.__contains__
    elif not folder.is_dir():
        there = _tfds_builder(name, data_dir).info.splits.__contains__
    elif (folder / "dataset_info.json").exists():
        builder = _import_tfds().builder_from_directory(str(folder))
        there = builder.info.splits.__contains__
    else:

        def there(split):
            # A folder with images and without folders may be a class.
            inner = _folders_of_images(folder / split)
            return bool(inner or find_record_files(folder, split))

    found = {}
    for split, names in words.items():
        known = [x for x in names if there(x)]
        if len(known) > 1:
            raise ValueError(
                f"`{name}` has several splits of one kind: "
                f"{', '.join(known)}. Keep one of them."
            )
        if known:
            found[split] = known[0]
    return found


def open_table(path):
    """Opens the splits of a table.

    Without a column `split`, all images are training images.

    Args:
        path: Path of a CSV file, as for `table.read_table`.

    Returns:
        Dictionary from a split of `SPLIT_NAMES` to an `ImageList`.

    Raises:
        FileNotFoundError: If an image is not there.
        ValueError: If the file is not such a table.
    """
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

    return {x: dataset(pairs) for x, pairs in parts.items()}


def _split_of(text, path):
    if text is None:
        return "train"
    if text.lower() in _SPLITS:
        return _SPLITS[text.lower()]
    raise ValueError(
        f"The column `split` of `{path}` must be one of "
        f"{', '.join(SPLIT_NAMES)}. Received: {text!r}"
    )


def _open_split_of_table(path, split):
    parts = open_table(path)
    found = _SPLITS.get(split)
    if found not in parts:
        raise ValueError(
            f"The table `{path}` has no images of the split {split!r}, only "
            f"of {', '.join(parts)}. Add a column `split`, or correct it. "
            "Without that column, all images are training images."
        )
    return parts[found]


def _explain_missing(folder, split):
    """Explains why a folder does not have a split, and what to do."""
    names = sorted(path.name for path in folder.iterdir())
    if any(list_images(path) for path in folder.iterdir()):
        parent = str(folder.absolute().parent)
        advice = (
            "Its folders hold images: did you mean its parent, "
            f"{parent!r}? Otherwise move them into {str(folder / split)!r}."
        )
    else:
        advice = (
            f"It contains {', '.join(names[:10]) or 'nothing'}. Add images as "
            f"{split}/CLASS/*.jpg, or choose another split."
        )
    return (
        f"There is no folder {str(folder / split)!r}, and {str(folder)!r} has "
        f"no TFRecord files with {split!r} in their names. {advice} Received: "
        f"split={split!r}"
    )


def _open_digits(split):
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError(
            "The data set 'digits' needs scikit-learn. "
            "Install it with: pip install convmixer_tf[train]"
        ) from error
    digits = load_digits()
    # A fifth of each class is for testing. Both splits have all writers.
    parts = train_test_split(
        np.arange(len(digits.target)),
        test_size=0.2,
        random_state=0,
        stratify=digits.target,
    )
    parts = dict(zip(("train", "test"), parts, strict=True))
    _check_split(split, parts)
    index = np.sort(parts[split])
    pixels = np.round(digits.images[index] * (255 / 16)).astype("uint8")
    contents = [tf.io.encode_png(image[..., None]).numpy() for image in pixels]
    return ImageList(
        names=tf.constant([f"digits {number}" for number in index]),
        labels=tf.constant(digits.target[index], tf.int64),
        class_names=tuple("0123456789"),
        contents=tf.constant(contents),
    )


def _check_split(split, splits):
    if split not in splits:
        raise ValueError(
            f"Argument `split` must be one of {', '.join(map(repr, splits))}. "
            f"Received: split={split!r}"
        )


def open_class_folders(folder, class_names=None):
    """Opens a folder with one folder of images for each class.

    Args:
        folder: Path of the folder, a `pathlib.Path`.
        class_names: Names of the class folders. Defaults to the folders with
            images in them.

    Returns:
        An `ImageList`.

    Raises:
        FileNotFoundError: If the target of a link does not exist.
        ValueError: If there are no images, or if a class has files but no
            readable image.
    """
    class_folders = sorted(class_names or _folders_of_images(folder))
    names, labels, others = [], [], []
    for label, class_folder in enumerate(class_folders):
        paths, left_out = walk_images(folder / class_folder)
        others += left_out
        if not paths:
            _LOG.warning(
                "No images of class %r in %s",
                printable_name(class_folder),
                folder,
            )
        names += paths
        labels += [label] * len(paths)
    files = (entry for entry in _visible(folder) if entry.is_file())
    others += [entry.path for entry in files]
    empty = []
    for entry in _visible(folder):
        if not os.path.exists(entry.path):
            raise FileNotFoundError(
                f"The target of the link {printable_name(entry.path)!r} does "
                "not exist. Make it available, or remove the link."
            )
        if not entry.is_dir() or entry.name in class_folders:
            continue
        _, left_out = walk_images(entry.path)
        if left_out:
            raise ValueError(_explain_lost(entry.path, left_out))
        empty.append(printable_name(entry.name))
    if empty:
        _LOG.warning(
            "Ignored empty folders %s in %s",
            ", ".join(map(repr, sorted(empty))),
            folder,
        )
    if others:
        _LOG.warning(
            "In %s, ignored %d files that are not %s in a class folder.%s",
            *(folder, len(others), ", ".join(EXTENSIONS)),
            why_left_out(others),
        )
    if not names:
        raise ValueError(
            f"No images found in {str(folder)!r}. Expected files "
            f"class/*{{{','.join(EXTENSIONS)}}}."
        )
    return ImageList(
        names=tf.constant([os.fsencode(name) for name in names]),
        labels=tf.constant(labels, tf.int64),
        class_names=tuple(map(printable_name, class_folders)),
        contents=read_if_small(names),
    )


def _explain_lost(folder, paths):
    """Reports that none of a class's files are images, with their suffixes."""
    suffixes = sorted({os.path.splitext(x)[1].lower() for x in paths})
    named = ", ".join(suffix or "no suffix" for suffix in suffixes)
    return (
        f"The folder {printable_name(folder)!r} has {len(paths)} files, but "
        f"none is a readable image. Expected {', '.join(EXTENSIONS)}. "
        f"Received: {named}. Convert them, or move the folder elsewhere."
        f"{why_left_out(paths)}"
    )


def _find_classes(folder, split):
    """Finds the class folders in a split and in its sibling splits.

    A class may have no images in one split, but its index must stay the same. A
    sibling folder without a common class is not a split; it may hold runs.
    """
    parts = [_folders_of_images(part) for part in _visible(folder)]
    found, before = _folders_of_images(folder / split), None
    while found != before:
        before = found
        found = found.union(*(part for part in parts if part & found))
    return found


def _folders_of_images(part):
    return {entry.name for entry in _visible(part) if _has_images(entry.path)}


def list_images(folder):
    """Lists the images in a folder, sorted. Empty if there is no folder."""
    return sorted(entry.path for entry in _visible(folder) if _is_image(entry))


def _has_images(folder):
    return any(_is_image(entry) for entry in _entries(folder))


def walk_images(folder):
    """Lists the images in a folder, recursively, and all other files."""
    images, others = [], []
    for entry in _entries(folder):
        (images if _is_image(entry) else others).append(entry.path)
    return sorted(images), sorted(others)


def _entries(folder, known=frozenset()):
    """Yields the files in a folder, recursively."""
    real = os.path.realpath(folder)
    if real in known:  # A link to an enclosing folder.
        return
    for entry in _visible(folder):
        if entry.is_dir():
            yield from _entries(entry.path, known | {real})
        else:
            yield entry


def _visible(folder):
    """Lists the entries of a folder, without hidden ones."""
    if not os.path.isdir(folder):
        return []
    return [
        x
        for x in os.scandir(folder)
        if not x.name.startswith(".") and x.name not in _HIDDEN
    ]


def _is_image(entry):
    extension = os.path.splitext(entry.name)[1].lower()
    known = extension in EXTENSIONS or extension in pillow_extensions()
    return known and entry.is_file()


def read_if_small(paths):
    """Reads files as a string tensor, or `None` if they are large."""
    size = 0
    for path in paths:
        size += os.path.getsize(path)
        if size > CACHE_BYTES:
            return None
    contents = [pathlib.Path(path).read_bytes() for path in paths]
    return tf.constant(contents)


def _import_tfds():
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "This data set needs tensorflow-datasets. "
            "Install it with: pip install convmixer_tf[train]"
        ) from error
    return tfds


def _open_tfds(name, split, data_dir, download):
    return _open_builder(_tfds_builder(name, data_dir, download), split)


def _tfds_builder(name, data_dir, download=False):
    tfds = _import_tfds()
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        # A ValueError means that the name looks like a path.
        raise FileNotFoundError(
            f"There is no folder {name!r}, and no data set of that name in "
            "tensorflow-datasets. Check the path of the folder."
        ) from error
    if download:
        builder.download_and_prepare()
    elif not builder.is_prepared():
        raise FileNotFoundError(
            f"Data set {name!r} is not prepared in {str(builder.data_path)!r}. "
            'To download and prepare it: python -c "import tensorflow_datasets '
            f"as tfds; tfds.builder('{name}').download_and_prepare()\", or "
            "pass "
            "download=True. If it is elsewhere, pass `data_dir`."
        )
    return builder


def _open_builder(builder, split):
    info = builder.info
    _check_split(split, info.splits)
    if not {"image", "label"} <= set(info.features):
        raise ValueError(
            f"Data set {info.name!r} must have the features 'image' and "
            f"'label'. It has {sorted(info.features)}."
        )
    if info.file_format.value != "tfrecord":
        raise ValueError(
            f"Data set {info.name!r} must be stored as 'tfrecord'. It is "
            f"stored as {info.file_format.value!r}. Prepare it again with "
            "tensorflow-datasets' default file format."
        )
    return _open_records(
        info.splits[split].filepaths,
        info.features["label"].names,
        info.splits[split].num_examples,
    )


def _open_remote(folder, split):
    """Opens records in an object store, where single files are too slow."""
    exists = tf.io.gfile.exists
    if exists(os.path.join(folder, "dataset_info.json")):
        builder = _import_tfds().builder_from_directory(folder)
        return _open_builder(builder, split)
    files = find_record_files(folder, split) if exists(folder) else ()
    if not files:
        raise FileNotFoundError(
            f"There are no TFRecord files for the split {split!r} in "
            f"{folder!r}. Images in an object store must be in TFRecords."
        )
    return _open_records(files, _read_class_names(folder))


def _read_class_names(folder):
    path = os.path.join(folder, "labels.txt")
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(
            f"A folder of TFRecords needs the class names in {path!r}, one "
            "name a line, in the order of the labels."
        )
    return read_lines(path, unique=True)


def _open_records(files, class_names, num_examples=None):
    """Opens TFRecord files and keeps small ones in memory."""
    records = open_records(files, class_names, num_examples)
    if sum(map(size_of_file, records.files)) > CACHE_BYTES:
        return records
    names, labels, contents = [], [], []
    try:
        for example in records.examples().as_numpy_iterator():
            image, label = read_record(records, example)
            names.append(example["name"])
            labels.append(label)
            contents.append(image)
    except tf.errors.OpError as error:
        where = names[-1].decode("utf-8", "replace") if names else "the start"
        raise ValueError(
            f"A TFRecord file is damaged, after {where}: "
            f"{', '.join(records.files[:5])}. Copy them again."
        ) from error
    return ImageList(
        names=tf.constant(names),
        labels=tf.constant(labels, tf.int64),
        class_names=records.class_names,
        contents=tf.constant(contents),
    )
