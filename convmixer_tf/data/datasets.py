"""Opens labelled images: folders, TFRecords, tensorflow-datasets, digits.

Two kinds of storage come out, with the same members. `ImageList` knows
every image by number (files, or bytes in memory), so its order is a true
permutation and starting in the middle is free. `ImageRecords` reads TFRecord
files that are too large for memory in sequence.
"""

import dataclasses
import logging
import os
import pathlib
import struct

import numpy as np
import tensorflow as tf

from convmixer_tf.validation import check_positive_integer

_LOG = logging.getLogger(__name__)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")

# Data sets up to this size are kept in memory, encoded.
CACHE_BYTES = 2**30

# Records that are shuffled at a time; of ImageNet, about 1 GB. The order of
# the files is shuffled, too.
SHUFFLE_BUFFER = 8192

# TFRecord files that are read at a time.
_OPEN_FILES = 16


@dataclasses.dataclass(frozen=True)
class ImageList:
    """Images that are addressed by number.

    Attributes:
        names: For messages: paths, or what comes closest. A string tensor.
        labels: Class index of each image, an int64 tensor.
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

    def repeated(self, times):
        """Returns the same images several times over, as one data set.

        An epoch costs some seconds besides its images. Of few small images,
        it had better be of several passes.

        Args:
            times: Integer.
        """
        check_positive_integer("times", times)
        contents = self.contents
        return dataclasses.replace(
            self,
            names=tf.tile(self.names, [times]),
            labels=tf.tile(self.labels, [times]),
            contents=None if contents is None else tf.tile(contents, [times]),
        )

    def examples(self, seed=None, epoch=0, repeats=1, skip=0):
        """Lists what identifies the images, without reading them.

        Args:
            seed: Integer; None for the stored order, once.
            epoch: Number of the epoch; each has its own order.
            repeats: How often an image follows itself (repeated
                augmentation). The number of examples stays the same.
            skip: Number of examples to leave out at the start.

        Returns:
            A `tf.data.Dataset` of dictionaries: `"key"`, an int64 that no
            other example of the epoch has; `"name"`; `"record"`, which is for
            `read`.
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
        return encoded, self.labels[record]


@dataclasses.dataclass(frozen=True)
class ImageRecords:
    """Images in TFRecord files, with the same members as `ImageList`.

    Attributes:
        files: Paths of the files.
        num_examples: Number of records in all of them.
        class_names: Names of the classes, by index.
    """

    files: tuple[str, ...]
    num_examples: int
    class_names: tuple[str, ...]

    def __len__(self):
        return self.num_examples

    def repeated(self, times):
        """As in `ImageList`."""
        check_positive_integer("times", times)
        return dataclasses.replace(
            self,
            files=self.files * times,
            num_examples=self.num_examples * times,
        )

    def examples(self, seed=None, epoch=0, repeats=1, skip=0):
        """As in `ImageList`; skipped records are read, not decoded."""
        numbers = np.arange(len(self.files))
        if seed is not None:
            random = np.random.default_rng([seed, epoch])
            random.shuffle(numbers)
        files = tf.constant(self.files)

        def read_file(number):
            records = tf.data.TFRecordDataset(files[number]).enumerate()
            return records.map(
                lambda position, record: {
                    "key": (number * 2**32 + position) * repeats,
                    "name": files[number]
                    + ", record "
                    + tf.strings.as_string(position),
                    "record": record,
                }
            )

        dataset = tf.data.Dataset.from_tensor_slices(numbers).interleave(
            read_file,
            cycle_length=_OPEN_FILES,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        if seed is not None:
            dataset = dataset.shuffle(
                SHUFFLE_BUFFER,
                seed=int(random.integers(2**31)),
                reshuffle_each_iteration=False,
            )
        if repeats > 1:
            dataset = dataset.flat_map(
                lambda example: tf.data.Dataset.range(repeats).map(
                    lambda copy: {**example, "key": example["key"] + copy}
                )
            ).take(len(self))
        return dataset.skip(skip)

    def read(self, record):
        """As in `ImageList`."""
        return parse_record(record)


def parse_record(record):
    """Parses a `tf.train.Example` with the features of tensorflow-datasets.

    Args:
        record: Scalar string tensor: a serialised example with the features
            `image`, an encoded image, and `label`, a class index.

    Returns:
        The encoded image and its label, int64.
    """
    features = tf.io.parse_single_example(
        record,
        {
            "image": tf.io.FixedLenFeature([], tf.string),
            "label": tf.io.FixedLenFeature([], tf.int64),
        },
    )
    return features["image"], features["label"]


def open_dataset(name, split, *, data_dir=None, download=False):
    """Opens a labelled image data set.

    Args:
        name: One of

            - `"digits"`: scikit-learn's 1,797 handwritten digits of 8 x 8
              pixels, for trying things out offline;
            - a folder with `split/class/*.jpg` (or .jpeg, .png, .bmp, .gif,
              .webp);
            - a folder that tensorflow-datasets prepared;
            - a folder of TFRecords whose names contain the split, with the
              features `image` and `label`, and the class names in a file
              `labels.txt`, one a line;
            - the name of a data set in tensorflow-datasets, with the features
              `image` and `label`, such as `"cifar10"` or `"imagenet2012"`.
        split: Which part, such as `"train"`, `"validation"` or `"test"`.
        data_dir: Where tensorflow-datasets keeps its data.
        download: Whether tensorflow-datasets may fetch and prepare data.

    Returns:
        An `ImageList` or `ImageRecords`. Both have `class_names` and a length.

    Raises:
        FileNotFoundError: If the data are not there.
        ValueError: If the split is unknown or the data have another form.
        ImportError: If the library that the data set needs is missing.

    Example:
    ```python
    dataset = open_dataset("digits", "train")
    len(dataset), len(dataset.class_names)  # (1437, 10)
    ```
    """
    if name == "digits":
        return _open_digits(split)
    folder = pathlib.Path(name)
    if not folder.is_dir():
        return _open_tfds(name, split, data_dir, download)
    if (folder / "dataset_info.json").exists():
        builder = _import_tfds().builder_from_directory(str(folder))
        return _open_builder(builder, split)
    if (folder / split).is_dir():
        return _open_image_folder(folder, split)
    files = [
        path
        for path in folder.iterdir()
        if "tfrecord" in path.name and split in path.name
    ]
    if files:
        return _open_records(files, _read_class_names(folder))
    raise ValueError(_explain_missing(folder, split))


def _explain_missing(folder, split):
    """Says why a folder has no such split, and what to do about it."""
    names = sorted(path.name for path in folder.iterdir())
    if any(list_images(path) for path in folder.iterdir()):
        parent = str(folder.absolute().parent)
        advice = (
            "Its folders hold images: did you mean its parent, "
            f"{parent!r}? Otherwise move them into {str(folder / split)!r}."
        )
    else:
        advice = (
            f"It has {', '.join(names[:10]) or 'nothing'}. Put images there, "
            f"as {split}/CLASS/*.jpg, or name another split."
        )
    return (
        f"There is no folder {str(folder / split)!r}, nor TFRecord files in "
        f"{str(folder)!r} with that in their names. {advice} "
        f"Received: split={split!r}"
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
    # A fifth of each class is for testing; both parts show all writers.
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


def _open_image_folder(folder, split):
    class_names = sorted(_find_classes(folder, split))
    names, labels, others = [], [], 0
    for label, class_name in enumerate(class_names):
        paths = list_images(folder / split / class_name)
        others += len(_visible(folder / split / class_name)) - len(paths)
        if not paths:
            _LOG.warning(
                "No images of class %r in %s", class_name, folder / split
            )
        names += paths
        labels += [label] * len(paths)
    folders = {x.name for x in _visible(folder / split) if x.is_dir()}
    empty = folders - {*class_names}
    if empty:
        _LOG.warning(
            "No folders of images, so no classes: %s in %s",
            ", ".join(map(repr, sorted(empty))),
            folder / split,
        )
    if others:
        _LOG.warning(
            "Left out of %s: %d that are not %s files",
            *(folder / split, others, ", ".join(EXTENSIONS)),
        )
    if not names:
        raise ValueError(
            f"No images found in {str(folder / split)!r}. Expected files "
            f"named class/*{{{','.join(EXTENSIONS)}}} in it."
        )
    return ImageList(
        names=tf.constant([os.fsencode(name) for name in names]),
        labels=tf.constant(labels, tf.int64),
        class_names=tuple(class_names),
        contents=_read_if_small(names),
    )


def _find_classes(folder, split):
    """Finds the folders of images in a split, and in those that go with it.

    A class may lack images in one split; its index must not move. What has no
    class in common with any of them is something else, such as runs.
    """
    parts = [_folders_of_images(part) for part in _visible(folder)]
    found, before = _folders_of_images(folder / split), None
    while found != before:
        before = found
        found = found.union(*(part for part in parts if part & found))
    return found


def _folders_of_images(part):
    return {
        entry.name
        for entry in _visible(part)
        if any(map(_is_image, _visible(entry)))
    }


def list_images(folder):
    """Lists the images in a folder, sorted; none if there is no such."""
    return sorted(entry.path for entry in _visible(folder) if _is_image(entry))


def _visible(folder):
    """Lists what is in a folder, but for what the system hides there."""
    if not os.path.isdir(folder):
        return []
    return [x for x in os.scandir(folder) if not x.name.startswith(".")]


def _is_image(entry):
    extension = os.path.splitext(entry.name)[1].lower()
    return extension in EXTENSIONS and entry.is_file()


def _read_if_small(paths):
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
    tfds = _import_tfds()
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        # A ValueError: the name can't be one, it looks like a path.
        raise FileNotFoundError(
            f"There is no folder {name!r}, and no data set of that name in "
            "tensorflow-datasets. Check the path of the folder."
        ) from error
    if download:
        builder.download_and_prepare()
    elif not builder.is_prepared():
        raise FileNotFoundError(
            f"Data set {name!r} is not prepared in {str(builder.data_path)!r}. "
            'To fetch and prepare it: python -c "import tensorflow_datasets as '
            f"tfds; tfds.builder('{name}').download_and_prepare()\", or pass "
            "download=True. If it is elsewhere, pass `data_dir`."
        )
    return _open_builder(builder, split)


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


def _read_class_names(folder):
    path = folder / "labels.txt"
    if not path.exists():
        raise FileNotFoundError(
            f"A folder of TFRecords needs the class names in {str(path)!r}, "
            "one a line, in the order of the labels."
        )
    return path.read_text(encoding="utf-8").splitlines()


def _open_records(files, class_names, num_examples=None):
    files = sorted(str(path) for path in files)
    if num_examples is None:
        num_examples = sum(map(_count_records, files))
    records = ImageRecords(tuple(files), num_examples, tuple(class_names))
    if sum(map(os.path.getsize, files)) > CACHE_BYTES:
        return records
    names, labels, contents = [], [], []
    for example in records.examples().as_numpy_iterator():
        image, label = parse_record(example["record"])
        names.append(example["name"])
        labels.append(label.numpy())
        contents.append(image.numpy())
    if labels and max(labels) >= len(class_names):
        raise ValueError(
            f"The record {names[np.argmax(labels)].decode()} has the label "
            f"{max(labels)}, but there are {len(class_names)} class names."
        )
    return ImageList(
        names=tf.constant(names),
        labels=tf.constant(labels, tf.int64),
        class_names=records.class_names,
        contents=tf.constant(contents),
    )


def _count_records(path):
    """Counts the records of a file by their lengths, without reading them."""
    count, position, size = 0, 0, os.path.getsize(path)
    with open(path, "rb") as file:
        while position < size:
            (length,) = struct.unpack("<Q", file.read(8))
            # A record: its length, a checksum of it, the data, theirs.
            position += 8 + 4 + length + 4
            file.seek(position)
            count += 1
    return count
