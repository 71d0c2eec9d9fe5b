"""Tests TFRecord files: splits, content and errors."""

import os

import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.data import datasets
from convmixer_tf.data import decode_image
from convmixer_tf.data import evaluation_batches
from convmixer_tf.data import open_dataset
from convmixer_tf.data.records import find_record_files

IMAGE = np.arange(8 * 6 * 3, dtype="uint8").reshape(8, 6, 3)
NAMES = ("ant", "bee", "cow")


def feature(value):
    if isinstance(value, int):
        kind = {"int64_list": tf.train.Int64List(value=[value])}
    else:
        kind = {"bytes_list": tf.train.BytesList(value=[value])}
    return tf.train.Feature(**kind)


def write(path, labels, compression="", **others):
    """Writes images whose first pixel is the number of the record."""
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for number, label in enumerate(labels):
            image = tf.io.encode_png(IMAGE + np.uint8(number)).numpy()
            values = {"image": image, "label": label}
            for key, value in others.items():
                values[key] = value(image, label)
            values = {k: v for k, v in values.items() if v is not None}
            features = {key: feature(value) for key, value in values.items()}
            example = tf.train.Example(
                features=tf.train.Features(feature=features)
            )
            writer.write(example.SerializeToString())
    path.with_name("labels.txt").write_text("\n".join(NAMES) + "\n")


def slim(first=0, **others):
    """Writes records like the model garden's scripts, from label `first`."""
    return {
        "image": lambda image, label: None,
        "label": lambda image, label: None,
        "image/encoded": lambda image, label: image,
        "image/class/label": lambda image, label: label + first,
        **others,
    }


def labels_of(dataset):
    found = []
    for example in dataset.examples():
        encoded, label = dataset.read(example["record"])
        found.append((int(decode_image(encoded)[0, 0, 0]), int(label)))
    return sorted(found)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("trains-train.tfrecord", "train"),
        ("trains-validation.tfrecord", "validation"),
        ("contest-train.tfrecord", "train"),
        ("contest-test.tfrecord-00000-of-00002", "test"),
        ("train-test.tfrecord", "test"),
        ("latest_val_00001-of-00005.tfrecord", "val"),
        ("train-00000-of-01024", "train"),
        ("train.tfrecords.gz", "train"),
        ("flowers_train.tfrecord", "train"),
        ("my_split.tfrecord", "my_split"),
        ("Train.tfrecord", "train"),
        ("TRAIN-TEST-00000-of-00002", "test"),
    ],
)
def test_the_split_is_a_whole_word_of_the_name(tmp_path, name, split):
    (tmp_path / name).write_bytes(b"x")
    for other in ("train", "test", "validation", "val", "rain", split):
        found = [
            os.path.basename(path)
            for path in find_record_files(tmp_path, other)
        ]
        assert found == ([name] if other == split else []), other


def test_other_files_are_no_records(tmp_path):
    for name in ("a-train.tfrecord.idx", "train.tfrecord.json", "train.csv"):
        (tmp_path / name).write_text("0 1234")
    (tmp_path / ".train.tfrecord").write_text("hidden")
    (tmp_path / "train.tfrecord.parts").mkdir()
    assert find_record_files(tmp_path, "train") == []


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
@pytest.mark.parametrize("compression", ["", "GZIP", "ZLIB"])
def test_compression_is_recognized(
    tmp_path, monkeypatch, compression, cache_bytes
):
    monkeypatch.setattr(datasets, "CACHE_BYTES", cache_bytes)
    write(tmp_path / "a-train.tfrecord", [0, 1, 2, 1], compression)
    dataset = open_dataset(tmp_path, "train")
    assert len(dataset) == 4
    assert labels_of(dataset) == [(0, 0), (1, 1), (2, 2), (3, 1)]


def test_records_in_an_object_store(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "CACHE_BYTES", 0)
    write(tmp_path / "a-train.tfrecord", [0, 1, 2, 1])
    for path in tmp_path.iterdir():
        tf.io.gfile.copy(str(path), f"ram://data/pets/{path.name}")
    dataset = open_dataset("ram://data/pets", "train")
    assert (len(dataset), dataset.class_names) == (4, NAMES)
    assert labels_of(dataset) == [(0, 0), (1, 1), (2, 2), (3, 1)]
    with pytest.raises(FileNotFoundError, match="must be in TFRecords"):
        open_dataset("ram://data/pets", "test")


def test_an_uncompressed_file_that_begins_like_a_compressed_one(tmp_path):
    """The first bytes are a record's length, here 0x8b1f."""
    path = tmp_path / "train.tfrecord"
    missing = 0x8B1F
    for _ in range(3):  # A longer text needs a longer length field.
        text = bytes(missing)
        write(path, [1], text=lambda image, label, text=text: text)
        missing -= int.from_bytes(path.read_bytes()[:8], "little") - 0x8B1F
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    assert labels_of(open_dataset(tmp_path, "train")) == [(0, 1)]


def synset(image, label):
    return b"n0000000"


def text(image, label):
    return NAMES[label].encode()


@pytest.mark.parametrize(
    "keys",
    [
        slim(),
        # ImageNet's own script starts at 1 and adds the synset.
        slim(1, **{"image/class/synset": synset}),
        slim(1, **{"image/class/text": text}),
        slim(0, **{"image/class/text": text}),
    ],
)
def test_the_keys_of_other_scripts(tmp_path, keys):
    write(tmp_path / "train-00000-of-00001", [0, 2], **keys)
    assert labels_of(open_dataset(tmp_path, "train")) == [(0, 0), (1, 2)]


def test_names_in_another_order(tmp_path):
    text = {"image/class/text": lambda i, y: NAMES[::-1][y].encode()}
    write(tmp_path / "train-00000-of-00001", [0], **slim(**text))
    with pytest.raises(ValueError, match="in the order of the labels"):
        open_dataset(tmp_path, "train")


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_a_label_of_minus_one_is_refused(tmp_path, monkeypatch, cache_bytes):
    monkeypatch.setattr(datasets, "CACHE_BYTES", cache_bytes)
    write(tmp_path / "test.tfrecord", [0, -1])
    if cache_bytes:
        with pytest.raises(
            ValueError, match=r"record 1 has the label -1.*unlab"
        ):
            open_dataset(tmp_path, "test")
    else:  # Data that is too large for memory is read only when used.
        batches = evaluation_batches(open_dataset(tmp_path, "test"), 8, 2)
        error = tf.errors.InvalidArgumentError
        with pytest.raises(error, match="not among the 3 class names"):
            next(iter(batches))


def test_empty_files_are_passed_over(tmp_path, caplog):
    write(tmp_path / "train-00000-of-00002.tfrecord", [0, 1])
    empty = tmp_path / "train-00001-of-00002.tfrecord"
    empty.write_bytes(b"")
    assert len(open_dataset(tmp_path, "train")) == 2
    assert caplog.messages == [f"Ignored empty files: {empty}"]


def test_no_records_at_all(tmp_path):
    write(tmp_path / "train.tfrecord", [])
    with pytest.raises(ValueError, match=r"no records in .*train\.tfrecord"):
        open_dataset(tmp_path, "train")


@pytest.mark.parametrize("compression", ["", "GZIP"])
@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_a_file_that_is_cut_off(
    tmp_path, monkeypatch, cache_bytes, compression
):
    monkeypatch.setattr(datasets, "CACHE_BYTES", cache_bytes)
    path = tmp_path / "train.tfrecord"
    write(path, [0, 1, 2], compression)
    os.truncate(path, path.stat().st_size - 20)
    with pytest.raises(ValueError, match=rf"{path} is truncated or damaged"):
        open_dataset(tmp_path, "train")


def test_a_file_that_is_something_else(tmp_path):
    path = tmp_path / "train.tfrecord"
    write(path, [0])
    path.write_text("These are notes on the records.")
    with pytest.raises(ValueError, match=rf"{path} is damaged or is not a TF"):
        open_dataset(tmp_path, "train")


def test_damaged_in_the_middle(tmp_path):
    path = tmp_path / "train.tfrecord"
    write(path, [0, 1, 2])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged, after .*record 0"):
        open_dataset(tmp_path, "train")


def test_other_features(tmp_path):
    path = tmp_path / "train.tfrecord"
    write(path, [0], image=lambda i, y: None, photo=lambda i, y: i)
    message = rf"{path} must have .* 'image/encoded' .* 'label', 'photo'"
    with pytest.raises(ValueError, match=message):
        open_dataset(tmp_path, "train")
    write(path, [0], label=lambda i, y: b"ant")
    message = r"record 0 must be .* 'label' \(one integer\)\. Received: 'image'"
    with pytest.raises(ValueError, match=message):
        open_dataset(tmp_path, "train")
