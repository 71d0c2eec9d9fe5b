"""Tests a user's images in folders, tables and splits."""

import logging
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from convmixer_tf.data import open_splits
from convmixer_tf.data.table import read_table

CLASSES = ("blue", "green", "red")


def write(folder, counts, size=8, seed=0, suffix=".png", kind="PNG"):
    """Writes a number of noise images of each class."""
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = rng.integers(0, 255, (size, size, 3), np.uint8)
            path = folder / name / f"{seed}_{i}{suffix}"
            Image.fromarray(pixels).save(path, kind)


def names(dataset):
    return set(dataset.names.numpy())


def per_class(splits):
    return {k: [*v.values()] for k, v in splits.counts_per_class().items()}


def test_class_folders_are_divided_of_each_class_alike(tmp_path):
    write(tmp_path, dict(zip(CLASSES, (20, 10, 4), strict=True)))
    before = sorted(tmp_path.rglob("*"))
    splits = open_splits(tmp_path)
    assert per_class(splits) == {"train": [16, 8, 3], "validation": [4, 2, 1]}
    assert splits.class_names == CLASSES
    assert splits.test is None
    assert not splits.multi_label
    assert not names(splits.train) & names(splits.validation)
    assert sorted(tmp_path.rglob("*")) == before
    again, other = open_splits(tmp_path), open_splits(tmp_path, seed=1)
    assert names(again.validation) == names(splits.validation)
    assert names(other.validation) != names(splits.validation)


def test_the_division_is_written_down_and_can_be_read(tmp_path):
    write(tmp_path / "data", dict.fromkeys(CLASSES, 5))
    splits = open_splits(tmp_path / "data")
    splits.save(tmp_path / "images.csv")
    assert len(read_table(tmp_path / "images.csv")) == 15
    again = open_splits(tmp_path / "images.csv", seed=7)
    assert again.digest() == splits.digest()
    assert names(again.validation) == names(splits.validation)
    assert again.class_names == CLASSES


@pytest.mark.parametrize("validation", ["validation", "val", "valid"])
def test_splits_are_found_by_their_usual_names(tmp_path, validation):
    write(tmp_path / "train", dict.fromkeys(CLASSES, 5), seed=1)
    write(tmp_path / validation, dict.fromkeys(CLASSES, 3), seed=2)
    write(tmp_path / "test", dict.fromkeys(CLASSES, 2), seed=3)
    write(tmp_path / "runs", {"other": 2})
    splits = open_splits(tmp_path)
    assert splits.counts() == {"train": 15, "validation": 9, "test": 6}
    assert splits.class_names == CLASSES


def test_test_images_choose_nothing(tmp_path):
    write(tmp_path / "train", dict.fromkeys(CLASSES, 5), seed=1)
    write(tmp_path / "test", dict.fromkeys(CLASSES, 2), seed=3)
    splits = open_splits(tmp_path)
    assert splits.counts() == {"train": 12, "validation": 3, "test": 6}
    assert all(b"/train/" in x for x in names(splits.validation))


def test_two_names_for_one_split_are_refused(tmp_path):
    for split in ("train", "val", "validation"):
        write(tmp_path / split, dict.fromkeys(CLASSES, 2))
    with pytest.raises(ValueError, match="several splits of one kind: valid"):
        open_splits(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    write(tmp_path, {"train": 5, "plane": 5})
    assert open_splits(tmp_path).class_names == ("plane", "train")


def test_an_image_beside_the_classes_makes_no_class(tmp_path):
    write(tmp_path / "train", dict.fromkeys(CLASSES, 5))
    shutil.copy(tmp_path / "train/red/0_0.png", tmp_path / "train/preview.png")
    assert open_splits(tmp_path).class_names == CLASSES


def test_splits_without_training_images_are_no_classes(tmp_path):
    write(tmp_path / "val", dict.fromkeys(CLASSES, 2), seed=1)
    write(tmp_path / "test", dict.fromkeys(CLASSES, 2), seed=2)
    with pytest.raises(ValueError, match=r"no training images.*validation, te"):
        open_splits(tmp_path)


def test_equal_files_are_never_on_both_sides(tmp_path, caplog):
    write(tmp_path, dict.fromkeys(CLASSES, 10))
    for i in range(10):
        source = tmp_path / "red" / f"0_{i}.png"
        for copy in range(3):
            shutil.copy(source, tmp_path / "red" / f"copy_{i}_{copy}.png")
    for seed in range(3):
        splits = open_splits(tmp_path, seed=seed)
        sides = [
            {bytes(x) for x in part.contents.numpy()}
            for part in (splits.train, splits.validation)
        ]
        assert not sides[0] & sides[1]
        assert sum(splits.counts().values()) == 60


def test_copies_across_given_splits_are_left_out(tmp_path, caplog):
    write(tmp_path / "train", dict.fromkeys(CLASSES, 5), seed=1)
    write(tmp_path / "val", dict.fromkeys(CLASSES, 4), seed=2)
    write(tmp_path / "test", dict.fromkeys(CLASSES, 4), seed=3)
    shutil.copy(tmp_path / "val/red/2_0.png", tmp_path / "train/red/x.png")
    shutil.copy(tmp_path / "test/red/3_0.png", tmp_path / "train/red/y.png")
    shutil.copy(tmp_path / "test/red/3_1.png", tmp_path / "val/red/z.png")
    splits = open_splits(tmp_path)
    assert splits.counts() == {"train": 15, "validation": 12, "test": 12}
    assert "Removed 2 of 17 training images" in caplog.text
    assert "Removed 1 of 13 validation images" in caplog.text


def test_equal_files_of_two_classes_are_named(tmp_path, caplog):
    write(tmp_path, dict.fromkeys(CLASSES, 4))
    shutil.copy(tmp_path / "red/0_0.png", tmp_path / "blue/same.png")
    open_splits(tmp_path)
    assert "but a different label" in caplog.text
    assert "blue/same.png" in caplog.text
    assert "red/0_0.png" in caplog.text


def test_five_images_are_divided(tmp_path):
    write(tmp_path, {"a": 3, "b": 2})
    splits = open_splits(tmp_path)
    assert per_class(splits) == {"train": [2, 1], "validation": [1, 1]}


def test_a_class_of_one_image_is_trained_on(tmp_path):
    write(tmp_path, {"a": 5, "b": 1})
    splits = open_splits(tmp_path)
    assert per_class(splits) == {"train": [4, 1], "validation": [1, 0]}


def test_one_image_a_class_is_too_few(tmp_path):
    write(tmp_path, {"a": 1, "b": 1})
    with pytest.raises(ValueError, match="too few images to set some aside: 2"):
        open_splits(tmp_path)


@pytest.mark.parametrize("name", ["cat;dog", "cat "])
def test_names_that_a_table_does_not_hold_are_refused(tmp_path, name):
    write(tmp_path, {name: 2, "horse": 2})
    with pytest.raises(ValueError, match=f"Received: '{name}'"):
        open_splits(str(tmp_path))


def test_nested_folders_and_rare_suffixes(tmp_path):
    write(tmp_path / "deep" / "er", {"a": 2})
    write(tmp_path, {"jfif": 3}, suffix=".jfif", kind="JPEG")
    write(tmp_path, {"jpe": 3}, suffix=".JPE", kind="JPEG")
    splits = open_splits(tmp_path)
    assert splits.class_names == ("deep", "jfif", "jpe")
    assert sum(splits.counts().values()) == 8


def test_names_that_are_not_utf8_are_escaped(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    write(tmp_path, {"a": 4, "b": 4})
    shutil.copytree(os.fsencode(tmp_path / "b"), folder, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "b")
    splits = open_splits(tmp_path)
    assert splits.class_names == ("a", r"caf\xe9")
    splits.save(tmp_path / "images.csv")
    assert open_splits(tmp_path / "images.csv").digest() == splits.digest()


def test_a_table_of_several_labels(tmp_path):
    write(tmp_path, {"x": 40})
    files = sorted((tmp_path / "x").iterdir())
    labels = ["a", "b", "a;b", ""] * 10
    lines = [f"x/{f.name},{y}" for f, y in zip(files, labels, strict=True)]
    table = tmp_path / "table.csv"
    table.write_text("path,label\n" + "\n".join(lines), encoding="utf-8")
    splits = open_splits(table)
    assert splits.multi_label
    assert splits.class_names == ("a", "b")
    assert splits.train.labels.shape == (32, 2)
    assert splits.validation.labels.numpy().sum(0).tolist() == [4, 4]


def test_a_table_with_an_unknown_split(tmp_path):
    write(tmp_path, {"x": 1})
    table = tmp_path / "table.csv"
    table.write_text("path,label,split\nx/0_0.png,a,trian\n")
    with pytest.raises(ValueError, match=r"table.csv.*Received: 'trian'"):
        open_splits(table)


def test_data_sets_are_divided_too():
    splits = open_splits("digits")
    assert splits.counts() == {"train": 1150, "validation": 287, "test": 360}


def test_no_images_at_all(tmp_path):
    with pytest.raises(ValueError, match="No images found"):
        open_splits(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        open_splits(tmp_path / "nowhere")


def test_the_log_says_how_many_were_set_aside(tmp_path, caplog):
    write(tmp_path, dict.fromkeys(CLASSES, 5))
    with caplog.at_level(logging.INFO):
        open_splits(tmp_path)
    assert "Set aside 3 of 15 images" in caplog.text
