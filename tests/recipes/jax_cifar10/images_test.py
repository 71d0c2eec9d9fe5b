"""Folders and archives of images, and what is kept of them."""

import importlib
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.helpers import write_images

CLASSES = ("cat", "dog", "eel")


@pytest.fixture
def images():
    return importlib.import_module("jax_cifar10.images")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "train", CLASSES, 4, 32)
    write_images(folder / "test", CLASSES, 2, 32)
    return folder


def pack(folder, path, splits=("train", "test"), root=""):
    files = [x for split in splits for x in folder.glob(f"{split}/*/*")]
    names = [f"{root}{file.relative_to(folder)}" for file in files]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file, name in zip(files, names, strict=True):
                archive.write(file, name)
    else:
        with tarfile.open(path, "w:xz") as archive:
            for file, name in zip(files, names, strict=True):
                archive.add(file, name)
    return path


def test_folders_and_archives_hold_the_same(images, folder, tmp_path):
    splits, names = images.read_images([folder])
    assert names == list(CLASSES)
    train = splits["train"]
    assert train.pixels.shape == (12, 32, 32, 3)
    np.testing.assert_array_equal(train.labels, np.repeat(range(3), 4))
    first = np.asarray(Image.open(folder / "train" / "cat" / "0.png"))
    np.testing.assert_array_equal(train.pixels[0], first)
    assert len(splits["test"]) == 6
    for sources in (
        [pack(folder, tmp_path / "all.zip")],
        [pack(folder, tmp_path / "all.tar.xz", root="cifar/")],
        [
            pack(folder, tmp_path / "test.zip", ["test"]),
            pack(folder, tmp_path / "train.zip", ["train"]),
        ],
    ):
        again, names = images.read_images(sources)
        assert names == list(CLASSES)
        for split in images.SPLITS:
            for part in ("pixels", "labels"):
                np.testing.assert_array_equal(
                    getattr(again[split], part), getattr(splits[split], part)
                )


def test_what_the_system_hides_is_no_image(images, folder, tmp_path):
    source = tmp_path / "images"
    shutil.copytree(folder, source)
    (source / "train" / "cat" / "._0.png").write_bytes(b"macOS")
    (source / "train" / "cat" / "folder.png").mkdir()
    for each in (source, pack(source, tmp_path / "all.zip")):
        splits, _ = images.read_images([each])
        assert len(splits["train"]) == 12


def test_what_was_decoded_is_kept(images, folder, tmp_path, monkeypatch):
    source = tmp_path / "images"
    shutil.copytree(folder, source)
    kept = tmp_path / "kept"
    assert images.open_images([source], kept) == CLASSES
    with monkeypatch.context() as context:
        context.setattr(images, "read_images", None)
        assert images.open_images([source], kept) == CLASSES
    loaded = images.load_images(kept, "test")
    expected = images.read_images([source])[0]["test"]
    np.testing.assert_array_equal(loaded.pixels, expected.pixels)
    np.testing.assert_array_equal(loaded.labels, expected.labels)
    (source / "test" / "eel" / "1.png").unlink()
    images.open_images([source], kept)
    assert len(images.load_images(kept, "test")) == 5


def test_what_is_refused(images, folder, tmp_path):
    def refused(error, message, *sources):
        with pytest.raises(error, match=message):
            images.open_images(sources, tmp_path / "kept")
        assert not (tmp_path / "kept").exists()

    refused(FileNotFoundError, "There is no `/no/where`", "/no/where")
    (tmp_path / "notes.txt").write_text("no images")
    refused(ValueError, "must be of folders, .zip and", tmp_path / "notes.txt")
    train = pack(folder, tmp_path / "train.zip", ["train"])
    refused(FileNotFoundError, "no images `test/CLASS/", train)
    refused(ValueError, r"--data has train/.* twice", train, folder)
    large = tmp_path / "large"
    shutil.copytree(folder, large)
    path = large / "test" / "dog" / "0.png"
    Image.new("RGB", (40, 30)).save(path)
    refused(ValueError, "must be of 32 x 32 pixels. .* of 40 x 30", large)
    Image.new("I;16", (32, 32), 4096).save(path)
    refused(ValueError, "8 bits a channel. .*dog/0.png of mode I", large)
    path.write_bytes(b"no image")
    refused(ValueError, "Can't read the image .*dog/0.png", large)
