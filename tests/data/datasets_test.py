import dataclasses
import os
import sys

import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf import ConvMixer
from convmixer_tf.data import datasets
from convmixer_tf.data import decode_image
from convmixer_tf.data import evaluation_batches
from convmixer_tf.data import get_augmentation
from convmixer_tf.data import hold_out
from convmixer_tf.data import open_dataset
from convmixer_tf.data import pillow
from convmixer_tf.data import train_batches
from convmixer_tf.data.datasets import ImageList
from convmixer_tf.data.records import ImageRecords
from convmixer_tf.models import save_model
from convmixer_tf.models.additions import read_class_names

IMAGE = np.arange(8 * 6 * 3, dtype="uint8").reshape(8, 6, 3)


def read_all(dataset, **arguments):
    examples = dataset.examples(**arguments)
    return [
        (example["name"].numpy().decode(), *dataset.read(example["record"]))
        for example in examples
    ]


def keys(dataset, **arguments):
    examples = dataset.examples(**arguments).as_numpy_iterator()
    return [int(example["key"]) for example in examples]


def write_records(path, count, first=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for index in range(first, first + count):
            image = tf.io.encode_png(IMAGE + np.uint8(index)).numpy()
            features = {
                "image": tf.train.Feature(
                    bytes_list=tf.train.BytesList(value=[image])
                ),
                "label": tf.train.Feature(
                    int64_list=tf.train.Int64List(value=[index % 3])
                ),
            }
            example = tf.train.Example(
                features=tf.train.Features(feature=features)
            )
            writer.write(example.SerializeToString())


@pytest.fixture
def record_folder(tmp_path):
    for part in range(4):
        path = tmp_path / f"my-train.tfrecord-{part:05}-of-00004"
        write_records(path, 5, first=5 * part)
    tmp_path.joinpath("labels.txt").write_text("cat\ndög\neel\n", "utf-8")
    return tmp_path


@pytest.mark.slow
def test_digits():
    train, test = (open_dataset("digits", s) for s in ("train", "test"))
    assert (len(train), len(test)) == (1437, 360)
    assert train.class_names == tuple("0123456789")
    everything = read_all(train) + read_all(test)
    names = {name for name, *_ in everything}
    assert len(names) == 1797
    # scikit-learn's digits start with 0 to 9, in order.
    by_name = {name: rest for name, *rest in everything}
    for number in range(10):
        encoded, label = by_name[f"digits {number}"]
        assert label == number
        assert label.dtype == tf.int64
    image = decode_image(encoded).numpy()
    assert image.shape == (8, 8, 3)
    assert image.max() == 255


def test_a_fifth_of_each_digit_is_for_testing():
    train, test = (
        np.bincount(open_dataset("digits", split).labels)
        for split in ("train", "test")
    )
    np.testing.assert_allclose(test, (train + test) / 5, atol=1)


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_repeated_data_are_the_same_images_again(
    record_folder, monkeypatch, cache_bytes
):
    monkeypatch.setattr(datasets, "CACHE_BYTES", cache_bytes)
    once = open_dataset(record_folder, "train")
    twice = once.repeated(2)
    assert (len(twice), twice.class_names) == (40, once.class_names)
    assert sorted(read_all(twice)) == sorted(2 * read_all(once))
    assert len(set(keys(twice, seed=0))) == 40
    with pytest.raises(ValueError, match="`times` must be a positive"):
        once.repeated(0)


def test_held_out_images_are_no_longer_among_the_others():
    dataset = open_dataset("digits", "test")
    rest, held_out = hold_out(dataset, 100)
    assert (len(rest), len(held_out)) == (len(dataset) - 100, 100)
    read = [read_all(part) for part in (dataset, rest, held_out)]
    everything, *parts = ({row[0]: row[1:] for row in rows} for rows in read)
    assert not set(parts[0]) & set(parts[1])
    for part in parts:
        for name, (image, label) in part.items():
            assert (image, label) == everything[name]
    assert len(set(map(int, held_out.labels))) == 10
    again = hold_out(dataset, 100)[1]
    np.testing.assert_array_equal(again.names, held_out.names)


def test_files_are_held_out_without_reading_them(tmp_path, save, monkeypatch):
    save(tmp_path, {f"train/a/{number}.png": IMAGE for number in range(5)})
    monkeypatch.setattr(datasets, "CACHE_BYTES", 0)
    rest, held_out = hold_out(open_dataset(tmp_path, "train"), 2)
    assert rest.contents is held_out.contents is None
    assert len(read_all(rest)) == 3


@pytest.mark.parametrize("count", [0, 360, 2.5])
def test_refuses_to_hold_out_all(count):
    with pytest.raises(ValueError, match="`held_out` must be"):
        hold_out(open_dataset("digits", "test"), count)


def test_refuses_to_hold_out_what_is_read_in_sequence(
    record_folder, monkeypatch
):
    monkeypatch.setattr(datasets, "CACHE_BYTES", 0)
    with pytest.raises(ValueError, match="Write them as two splits"):
        hold_out(open_dataset(record_folder, "train"), 2)


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_image_folder(tmp_path, save, monkeypatch, cache_bytes):
    monkeypatch.setattr(datasets, "CACHE_BYTES", cache_bytes)
    save(
        tmp_path,
        {
            "train/größe/été.png": IMAGE,
            "train/größe/b.JPG": IMAGE,
            "train/猫/c.jpeg": IMAGE,
            "train/猫/notes.txt": b"no image",
            "train/readme.txt": b"no class",
            "test/猫/d.webp": IMAGE,
            "test/zebra/d.bmp": IMAGE,
        },
    )
    train = open_dataset(str(tmp_path), "train")
    assert isinstance(train, ImageList)
    assert (train.contents is None) == (cache_bytes == 0)
    # Classes of other splits are included, so that indices agree.
    assert train.class_names == ("größe", "zebra", "猫")
    assert open_dataset(tmp_path, "test").class_names == train.class_names
    assert len(train) == 3
    found = [(name.split("/")[-1], int(y)) for name, _, y in read_all(train)]
    assert found == [("b.JPG", 0), ("été.png", 0), ("c.jpeg", 2)]
    np.testing.assert_array_equal(decode_image(read_all(train)[1][1]), IMAGE)


def test_warns_of_what_it_leaves_out(tmp_path, save, caplog, monkeypatch):
    monkeypatch.setattr(pillow, "_readable", tuple)
    save(
        tmp_path,
        {
            "train/a/1.png": IMAGE,
            "train/a/2.heic": b"\0\0\0\x18ftypheic",
            "test/a/1.png": IMAGE,
            "test/b/1.png": IMAGE,
        },
    )
    (tmp_path / "train" / "empty").mkdir()
    assert open_dataset(tmp_path, "train").class_names == ("a", "b")
    empty, unseen, other = caplog.messages
    train = tmp_path / "train"
    assert empty == f"No images of class 'b' in {train}"
    assert unseen == f"Ignored empty folders 'empty' in {train}"
    assert other.startswith(f"In {train}, ignored 1 files that are not .jpg")
    assert "2.heic': It is a HEIC photograph, the format of iPhones" in other


def test_what_is_beside_classes_and_images_is_neither(tmp_path, save, caplog):
    save(
        tmp_path,
        {
            "train/a/1.png": IMAGE,
            "train/a/._1.png": b"macOS",
            "train/.thumbnails/1.png": IMAGE,
            "test/b/1.png": IMAGE,
            "validation/a/1.png": IMAGE,
            "validation/b/1.png": IMAGE,
            "runs/mine/curve.png": IMAGE,
            "__MACOSX/train/._1.png": b"macOS",
            ".git/hooks/a.png": IMAGE,
        },
    )
    (tmp_path / "train" / "a" / "folder.jpg").mkdir()
    for split in ("train", "test", "validation"):
        dataset = open_dataset(tmp_path, split)
        assert dataset.class_names == ("a", "b")
        names = [name for name, *_ in read_all(dataset)]
        assert {name.split("/")[-1] for name in names} == {"1.png"}


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_records(record_folder, monkeypatch, cache_bytes):
    monkeypatch.setattr(datasets, "CACHE_BYTES", cache_bytes)
    dataset = open_dataset(str(record_folder), "train")
    kind = ImageList if cache_bytes else ImageRecords
    assert isinstance(dataset, kind)
    assert len(dataset) == 20
    assert dataset.class_names == ("cat", "dög", "eel")
    examples = read_all(dataset)
    assert len({name for name, *_ in examples}) == 20
    first = sorted(int(decode_image(x)[0, 0, 0]) for _, x, _ in examples)
    assert first == list(range(20))
    for _, encoded, label in examples:
        assert int(decode_image(encoded)[0, 0, 0]) % 3 == label


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_order(record_folder, monkeypatch, cache_bytes):
    monkeypatch.setattr(datasets, "CACHE_BYTES", cache_bytes)
    dataset = open_dataset(str(record_folder), "train")
    order = keys(dataset, seed=1, epoch=0)
    assert len(set(order)) == 20
    assert order != keys(dataset)
    assert order == keys(dataset, seed=1, epoch=0)
    assert order != keys(dataset, seed=2, epoch=0)
    assert order != keys(dataset, seed=1, epoch=1)
    assert sorted(order) == sorted(keys(dataset, seed=1, epoch=1))
    assert keys(dataset, seed=1, epoch=0, skip=7) == order[7:]
    examples = dataset.examples(seed=1, epoch=0)
    twice = [[int(x["key"]) for x in examples] for _ in range(2)]
    assert twice == [order, order]


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_repeats(record_folder, monkeypatch, cache_bytes):
    monkeypatch.setattr(datasets, "CACHE_BYTES", cache_bytes)
    dataset = open_dataset(str(record_folder), "train")
    order = keys(dataset, seed=1, epoch=0)
    repeated = keys(dataset, seed=1, epoch=0, repeats=3)
    assert len(set(repeated)) == len(repeated) == 20
    assert [key // 3 for key in repeated[::3]] == order[:7]
    assert repeated[:3] == [order[0] * 3 + copy for copy in range(3)]
    names = [name for name, *_ in read_all(dataset, seed=1, repeats=3)]
    assert len(set(names[:3])) == 1
    assert len(set(names)) == 7


def test_prepared_by_tfds(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    class Pets(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = tmp_path

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(8, 6, 3)),
                        "label": tfds.features.ClassLabel(names=["cat", "dög"]),
                    }
                ),
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index in range(5):
                yield index, {"image": IMAGE + np.uint8(index), "label": 1}

    builder = Pets(data_dir=str(tmp_path))
    builder.download_and_prepare()
    dataset = open_dataset(str(builder.data_path), "train")
    assert dataset.class_names == ("cat", "dög")
    assert len(dataset) == 5
    examples = read_all(dataset)
    assert {int(label) for *_, label in examples} == {1}
    first = sorted(int(decode_image(x)[0, 0, 0]) for _, x, _ in examples)
    assert first == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="`split` must be one of 'train'"):
        open_dataset(str(builder.data_path), "test")


def test_tfds_is_not_downloaded(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(FileNotFoundError, match="or pass download=True"):
        open_dataset("cifar10", "train", data_dir=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_refuses_unknown_names(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(
        FileNotFoundError, match="There is no folder 'no_such_data"
    ):
        open_dataset("no_such_data_set", "train", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("module", "name", "message"),
    [
        ("tensorflow_datasets", "cifar10", "needs tensorflow-datasets"),
        ("sklearn.datasets", "digits", "needs scikit-learn"),
    ],
)
def test_names_the_missing_library(monkeypatch, module, name, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{message}.*\[train\]"):
        open_dataset(name, "train")


def test_refuses_unknown_splits(tmp_path, save):
    with pytest.raises(ValueError, match="`split` must be one of 'train', 't"):
        open_dataset("digits", "validation")
    save(tmp_path, {"train/a/1.png": IMAGE})
    message = "test', and .* It contains train. Add images as test/CLASS"
    with pytest.raises(ValueError, match=message):
        open_dataset(tmp_path, "test")


def test_names_the_parent_of_a_folder_of_classes(tmp_path, save):
    save(tmp_path, {"train/a/1.png": IMAGE})
    message = rf"mean its parent, '{tmp_path}'\? Otherwise .*train/test'\. Rec"
    with pytest.raises(ValueError, match=message):
        open_dataset(tmp_path / "train", "test")


def test_refuses_a_folder_without_images(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"No images found in .*train"):
        open_dataset(tmp_path, "train")


def test_refuses_records_without_class_names(record_folder):
    (record_folder / "labels.txt").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"labels\.txt', one name a line"
    ):
        open_dataset(str(record_folder), "train")


@pytest.mark.slow
def test_refuses_labels_without_names(record_folder, monkeypatch):
    (record_folder / "labels.txt").write_text("cat\ndog\n")
    message = r"00004, record 0 has the label 2, but the 2 class names"
    with pytest.raises(ValueError, match=message):
        open_dataset(record_folder, "train")
    # Data that is too large for memory is read only when it is used.
    monkeypatch.setattr(datasets, "CACHE_BYTES", 0)
    large = open_dataset(record_folder, "train")
    augmentation = get_augmentation("none")
    for batches in (
        evaluation_batches(large, 8, 20),
        train_batches(large, augmentation, 8, 20, seed=0, epoch=0),
    ):
        error = tf.errors.InvalidArgumentError
        with pytest.raises(error, match="not among the 2 class names"):
            next(iter(batches))


def test_class_folders_are_searched_with_their_folders(tmp_path, save, caplog):
    save(
        tmp_path,
        {
            "train/cat/sub/deep/1.jpg": IMAGE,
            "train/cat/2.JFIF": IMAGE,
            "train/dog/1.jpe": IMAGE,
            "train/dog/.hidden/1.jpg": IMAGE,
            "train/dog/Thumbs.db": b"Windows",
        },
    )
    (tmp_path / "train" / "cat" / "again").symlink_to(tmp_path / "train/cat")
    dataset = open_dataset(tmp_path, "train")
    assert dataset.class_names == ("cat", "dog")
    found = [(name.split("/")[-1], int(y)) for name, _, y in read_all(dataset)]
    assert found == [("2.JFIF", 0), ("1.jpg", 0), ("1.jpe", 1)]
    assert caplog.messages == []


def test_a_class_is_not_lost(tmp_path, save, monkeypatch):
    monkeypatch.setattr(pillow, "_readable", tuple)  # As without pillow-heif.
    save(
        tmp_path,
        {
            "train/cat/1.png": IMAGE,
            "train/dog/1.heic": b"HEIC",
            "train/dog/more/2.HEIC": b"HEIC",
        },
    )
    message = r"train/dog' has 2 files, .* Received: \.heic\. Convert them"
    with pytest.raises(ValueError, match=message):
        open_dataset(tmp_path, "train")


@pytest.mark.skipif(sys.platform != "linux", reason="any bytes are names")
def test_names_that_are_not_utf_8(tmp_path):
    content = tf.io.encode_png(IMAGE).numpy()
    for folder in (b"caf\xe9", b"two\nlines"):
        path = os.path.join(os.fsencode(tmp_path), b"train", folder)
        os.makedirs(path)
        with open(os.path.join(path, b"\xff.png"), "wb") as file:
            file.write(content)
    dataset = open_dataset(tmp_path, "train")
    assert dataset.class_names == (r"caf\xe9", r"two\nlines")
    for example in dataset.examples():
        encoded, _ = dataset.read(example["record"])
        np.testing.assert_array_equal(decode_image(encoded), IMAGE)
    model = ConvMixer(4, 1, 3, 4, input_shape=(8, 8, 3), classes=2)
    save_model(model, tmp_path / "model.keras", dataset.class_names, 1.0)
    names = read_class_names(tmp_path / "model.keras")
    assert names == dataset.class_names


@pytest.mark.parametrize("name", ["dog", "b"])
def test_a_class_whose_folder_is_not_there(tmp_path, save, name):
    image = np.zeros((8, 8, 3), "uint8")
    save(tmp_path, {"train/a/1.png": image, "test/b/2.png": image})
    save(tmp_path, {"test/a/1.png": image})
    os.symlink(tmp_path / "unplugged", tmp_path / "train" / name)
    message = f"train/{name}' does not exist"
    with pytest.raises(FileNotFoundError, match=message):
        open_dataset(tmp_path, "train")


def test_some_images_are_selected_and_labels_may_be_several():
    dataset = open_dataset("digits", "test")
    part = dataset.select([5, 3, 5])
    assert len(part) == 3
    for name in ("names", "labels", "contents"):
        whole, some = getattr(dataset, name), getattr(part, name)
        assert [*some.numpy()] == [whole[i].numpy() for i in (5, 3, 5)]
    targets = part.targets()
    assert targets.shape == (3, 10)
    np.testing.assert_array_equal(targets.argmax(1), part.labels)
    several = dataclasses.replace(part, labels=tf.constant(targets))
    np.testing.assert_array_equal(several.targets(), targets)


def test_a_table_has_splits_and_several_labels(tmp_path, save, photos):
    save(tmp_path, {f"{i}.png": photos[0][:8, :8] for i in range(4)})
    table = tmp_path / "table.csv"
    table.write_text(
        "path,label,split\n0.png,a;b,train\n1.png,,train\n2.png,b,val\n"
    )
    train = open_dataset(table, "train")
    assert train.multi_label
    assert train.class_names == ("a", "b")
    np.testing.assert_array_equal(train.labels, [[1, 1], [0, 0]])
    np.testing.assert_array_equal(
        open_dataset(str(table), "validation").labels, [[0, 1]]
    )
    message = "no images of the split 'test', only of train, validation"
    with pytest.raises(ValueError, match=message):
        open_dataset(table, "test")
