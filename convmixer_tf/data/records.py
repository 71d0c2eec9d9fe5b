"""Labeled images in TFRecord files."""

import dataclasses
import logging
import os
import re
import struct

import numpy as np
import tensorflow as tf

from convmixer_tf.files import is_remote
from convmixer_tf.files import open_binary
from convmixer_tf.validation import check_positive_integer

_LOG = logging.getLogger(__name__)

# Size of the shuffle buffer, in records. For ImageNet, it takes about 1 GB. The
# order of the files is also shuffled.
SHUFFLE_BUFFER = 8192

# Number of files that are read at a time.
_OPEN_FILES = 16

# Feature names of tensorflow-datasets, and of the scripts that convert ImageNet
# and other data sets for TensorFlow's model garden.
_KEYS = (("image", "label"), ("image/encoded", "image/class/label"))
# The model garden's features with the class name.
_CLASS_KEYS = ("image/class/synset", "image/class/text")

# Names of splits. The last one in a file's name is used.
_SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test")
_SHARD = re.compile(r"\d+-of-\d+$")
# Other files beside the records, such as indices of record positions.
_NOT_RECORDS = (".idx", ".index", ".json", ".txt", ".csv", ".md5", ".crc")


@dataclasses.dataclass(frozen=True)
class RecordFormat:
    """The storage format of a data set's records.

    Attributes:
        image_key: Name of the feature with the encoded image.
        label_key: Name of the feature with the label.
        first_label: Number of the first class, 0 or 1.
    """

    image_key: str = "image"
    label_key: str = "label"
    first_label: int = 0

    def parse(self, record):
        """Parses a `tf.train.Example`.

        Args:
            record: Scalar string tensor, a serialized example.

        Returns:
            The encoded image and its label, int64.
        """
        features = tf.io.parse_single_example(
            record,
            {
                self.image_key: tf.io.FixedLenFeature([], tf.string),
                self.label_key: tf.io.FixedLenFeature([], tf.int64),
            },
        )
        label = features[self.label_key] - self.first_label
        return features[self.image_key], label


@dataclasses.dataclass(frozen=True)
class ImageRecords:
    """Images in TFRecord files, with the same members as `ImageList`.

    Attributes:
        files: Paths of the files.
        num_examples: Number of records in all of them.
        class_names: Names of the classes, by index.
        compression: Compression of each file, `""`, `"GZIP"` or `"ZLIB"`.
            Defaults to none.
        format: A `RecordFormat`.
    """

    multi_label = False  # Each record has one label.

    files: tuple[str, ...]
    num_examples: int
    class_names: tuple[str, ...]
    compression: tuple[str, ...] = ()
    format: RecordFormat = RecordFormat()

    def __len__(self):
        return self.num_examples

    def repeated(self, times):
        """As in `ImageList`."""
        check_positive_integer("times", times)
        return dataclasses.replace(
            self,
            files=self.files * times,
            num_examples=self.num_examples * times,
            compression=self.compression * times,
        )

    def examples(self, seed=None, epoch=0, repeats=1, skip=0):
        """As in `ImageList`. Skipped records are read but not decoded."""
        numbers = np.arange(len(self.files))
        if seed is not None:
            random = np.random.default_rng([seed, epoch])
            random.shuffle(numbers)
        files = tf.constant(self.files)
        compression = tf.constant(self.compression or [""] * len(self.files))

        def read_file(number):
            records = tf.data.TFRecordDataset(
                files[number], compression_type=compression[number]
            )
            return records.enumerate().map(
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
        return self.format.parse(record)


def find_record_files(folder, split):
    """Finds the TFRecord files of a split by their names.

    The name must contain the split as a whole word, in upper or lower case,
    such as `pets-train.tfrecord-00000-of-00010`, `train-00000-of-01024` or
    `val.tfrecords.gz`. If a name contains several splits, the last one is used:
    the file `train-test.tfrecord` belongs to the split `test`.

    Args:
        folder: Path of the folder.
        split: String, the name of the split.

    Returns:
        Sorted list of paths, as strings.
    """
    if is_remote(folder):
        names = tf.io.gfile.listdir(folder)
    else:
        names = [entry.name for entry in os.scandir(folder) if entry.is_file()]
    return sorted(
        os.path.join(folder, name)
        for name in names
        if is_record_file(name) and _split_of(name, split)
    )


def is_record_file(path):
    """Says whether a file's name is one of TFRecords."""
    name = os.path.basename(path)
    return (
        not name.startswith(".")
        and not name.lower().endswith(_NOT_RECORDS)
        and ("tfrecord" in name.lower() or bool(_SHARD.search(name)))
    )


def _split_of(name, split):
    """Returns whether the last split in a name is `split`."""
    words = "|".join(map(re.escape, (split, *_SPLITS)))
    word = rf"(?<![^\W_])(?:{words})(?![^\W_])"
    found = re.findall(word, name, re.IGNORECASE)
    return bool(found) and found[-1].lower() == split.lower()


def size_of_file(path):
    """Returns the size in bytes of a local or remote file."""
    if is_remote(path):
        return tf.io.gfile.stat(path).length
    return os.path.getsize(path)


def open_records(files, class_names, num_examples=None):
    """Opens TFRecord files.

    Args:
        files: Paths of the files. Their compression and their feature names are
            detected.
        class_names: Names of the classes, by index.
        num_examples: Number of records, or `None` to count them.

    Returns:
        An `ImageRecords`.

    Raises:
        ValueError: If a file is damaged or has other features, or if there are
            no records. The message names the file.
    """
    files = sorted(str(path) for path in files)
    empty = [path for path in files if size_of_file(path) == 0]
    if empty:
        _LOG.warning("Ignored empty files: %s", ", ".join(empty))
        files = [path for path in files if path not in empty]
    compression = [_compression(path) for path in files]
    pairs = list(zip(files, compression, strict=True))
    for path, kind in pairs:
        first = _first_record(path, kind)
        if first is not None:
            break
    else:
        raise ValueError(
            "There are no records in the TFRecord files "
            f"{', '.join((empty + files)[:5])}."
        )
    record_format = _format_of(first, path, class_names)
    if num_examples is None:
        num_examples = sum(_count_records(*pair) for pair in pairs)
    return ImageRecords(
        tuple(files),
        num_examples,
        tuple(class_names),
        tuple(compression),
        record_format,
    )


def read_record(records, example):
    """Reads a record. Errors name the record.

    Args:
        records: An `ImageRecords`.
        example: An example from `records.examples`, as NumPy values.

    Returns:
        The encoded image, bytes, and its label, an integer.

    Raises:
        ValueError: If the record has other features or an unknown label.
    """
    name = example["name"].decode("utf-8", "backslashreplace")
    try:
        image, label = records.read(example["record"])
    except tf.errors.OpError as error:
        keys = (records.format.image_key, records.format.label_key)
        raise ValueError(
            f"The record {name} must be an example with the features "
            f"{keys[0]!r} (bytes) and {keys[1]!r} (one integer). "
            f"{_features_text(example['record'])}"
        ) from error
    label, count = int(label), len(records.class_names)
    if not 0 <= label < count:
        first = records.format.first_label
        hint = " A label of -1 marks an unlabeled image." if label < 0 else ""
        raise ValueError(
            f"The record {name} has the label {label + first}, but the "
            f"{count} class names are for the labels {first} to "
            f"{count - 1 + first}.{hint}"
        )
    return image.numpy(), label


def count_records(path):
    """Counts the records of a TFRecord file.

    Args:
        path: Its path.

    Returns:
        Integer; 0 of an empty file.

    Raises:
        ValueError: If it is cut off or damaged.
    """
    return _count_records(path, _compression(path))


def read_record_images(path, start, count):
    """Reads the encoded images of some records of a file.

    Args:
        path: Path of the TFRecord file.
        start: Integer, the first record.
        count: Integer, how many there are.

    Yields:
        Bytes for each record: `None` if it is damaged, empty if it has no
        image.
    """
    dataset = tf.data.TFRecordDataset(path, compression_type=_compression(path))
    position, end = start, start + count
    while position < end:
        try:
            for record in dataset.skip(position).take(end - position):
                features = _features(record.numpy())
                keys = [key for key, _ in _KEYS if key in features]
                values = features[keys[0]].bytes_list.value if keys else ()
                yield values[0] if values else b""
                position += 1
        except tf.errors.OpError:  # The rest is read past it.
            yield None
            position += 1


def _compression(path):
    """Detects a file's compression from its first bytes."""
    with open_binary(path) as file:
        head = file.read(2)
    is_zlib = head[:1] == b"\x78" and int.from_bytes(head) % 31 == 0
    kind = "GZIP" if head == b"\x1f\x8b" else "ZLIB" if is_zlib else ""
    # A record's length may start with the same bytes, but has a checksum.
    if kind and _is_readable(path, ""):
        return ""
    return kind


def _is_readable(path, compression):
    try:
        _first_record(path, compression)
    except ValueError:
        return False
    return True


def _first_record(path, compression):
    """Returns the first record of a file, or `None` if it has none."""
    dataset = tf.data.TFRecordDataset(path, compression_type=compression)
    try:
        for record in dataset.take(1):
            return record.numpy()
    except tf.errors.OpError as error:
        raise ValueError(
            f"The file {path} is damaged or is not a TFRecord file. Repair it, "
            "or move it elsewhere."
        ) from error
    return None


def _format_of(record, path, class_names):
    """Detects the features of a data set from its first record."""
    features = _features(record)
    for image_key, label_key in _KEYS:
        if image_key in features and label_key in features:
            break
    else:
        raise ValueError(
            f"The records of {path} must have the features 'image' and "
            "'label', as in tensorflow-datasets, or 'image/encoded' and "
            f"'image/class/label'. {_features_text(record)}"
        )
    if image_key == "image":
        return RecordFormat()
    first = _first_label(features, label_key, path, class_names)
    return RecordFormat(image_key, label_key, first)


def _first_label(features, label_key, path, class_names):
    """Detects whether labels start at 0 or at 1.

    The scripts that convert ImageNet start at 1 and add the class name. Others
    start at 0.
    """
    label = features[label_key].int64_list.value[:1]
    for key in _CLASS_KEYS:
        texts = features[key].bytes_list.value[:1] if key in features else ()
        for text in texts:
            name = text.decode("utf-8", "backslashreplace")
            if label and name in class_names:
                first = label[0] - list(class_names).index(name)
                if first in (0, 1):
                    return first
                raise ValueError(
                    f"The first record of {path} has the class {name!r} and "
                    f"the label {label[0]}, but `labels.txt` has that name in "
                    f"line {list(class_names).index(name) + 1}. Expected the "
                    "names in the order of the labels."
                )
    return 1 if _CLASS_KEYS[0] in features else 0


def _features(record):
    try:
        return tf.train.Example.FromString(record).features.feature
    except Exception:  # protobuf's DecodeError is in no public module.
        return {}


def _features_text(record):
    names = sorted(_features(record))
    return f"Received: {', '.join(map(repr, names[:10])) or 'no features'}"


def _count_records(path, compression):
    """Counts the records of a file."""
    if compression or is_remote(path):
        records = tf.data.TFRecordDataset(path, compression_type=compression)
        try:
            return int(records.reduce(np.int64(0), lambda n, _: n + 1))
        except tf.errors.OpError as error:
            raise _is_cut_off(path) from error
    # Use the records' lengths; don't read their data.
    count, position, size = 0, 0, os.path.getsize(path)
    with open(path, "rb") as file:
        while position < size:
            head = file.read(8)
            if len(head) < 8:
                raise _is_cut_off(path)
            (length,) = struct.unpack("<Q", head)
            # A record has its length, a checksum, its data, and a checksum.
            position += 8 + 4 + length + 4
            if position > size:
                raise _is_cut_off(path)
            file.seek(position)
            count += 1
    return count


def _is_cut_off(path):
    return ValueError(
        f"The TFRecord file {path} is truncated or damaged. Copy it again."
    )
