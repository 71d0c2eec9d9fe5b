"""Tests reading images as one array after the evaluation transform."""

import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.data import decode_image
from convmixer_tf.data import open_dataset
from convmixer_tf.data import open_unlabeled
from convmixer_tf.data import read_images
from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.data.records import ImageRecords
from tests.helpers import write_images

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "test", CLASSES, 12, 24)
    return folder


def transformed(path, size, crop_fraction):
    image = decode_image(tf.io.read_file(str(path)))
    return resize_and_center_crop(image, size, crop_fraction).numpy()


@pytest.mark.slow
def test_all_images_in_order(folder):
    dataset = open_dataset(str(folder), "test")
    images, labels = read_images(dataset, 16, crop_fraction=0.8)
    assert (images.shape, images.dtype) == ((36, 16, 16, 3), np.uint8)
    assert labels.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    paths = sorted((folder / "test").glob("*/*.png"), key=str)
    for image, path in zip(images, paths, strict=True):
        np.testing.assert_array_equal(image, transformed(path, 16, 0.8))


@pytest.mark.slow
def test_a_few_are_of_all_classes(folder):
    dataset = open_dataset(str(folder), "test")
    every, _ = read_images(dataset, 16)
    images, labels = read_images(dataset, 16, limit=6)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(images, every[::6])
    assert len(read_images(dataset, 16, limit=99)[0]) == 36
    with pytest.raises(ValueError, match="`limit` must be a positive"):
        read_images(dataset, 16, limit=0)


def test_the_first_of_records(folder, tmp_path):
    path = tmp_path / "test.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for label in range(5):
            encoded = (folder / f"test/red/{label}.png").read_bytes()
            image = tf.train.Feature(
                bytes_list=tf.train.BytesList(value=[encoded])
            )
            number = tf.train.Feature(
                int64_list=tf.train.Int64List(value=[label])
            )
            features = {"image": image, "label": number}
            example = tf.train.Example(
                features=tf.train.Features(feature=features)
            )
            writer.write(example.SerializeToString())
    dataset = ImageRecords((str(path),), 5, tuple("abcde"))
    images, labels = read_images(dataset, 24, limit=3, crop_fraction=1)
    assert labels.tolist() == [0, 1, 2]
    expected = transformed(folder / "test/red/2.png", 24, 1)
    np.testing.assert_array_equal(images[2], expected)


def test_images_without_labels(folder, tmp_path):
    dataset = open_unlabeled(folder / "test" / "green")
    assert dataset.class_names == ()
    images, labels = read_images(dataset, 24, crop_fraction=1)
    assert labels.tolist() == [-1] * 12
    assert images[..., 1].mean() > images[..., 0].mean() + 100
    for empty in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileNotFoundError, match="There are no images in"):
            open_unlabeled(empty)
