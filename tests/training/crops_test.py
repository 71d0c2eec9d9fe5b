"""Tests views of images in memory and their batches."""

import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.data.samples import open_files
from convmixer_tf.training import TrainConfig
from convmixer_tf.training.crops import Crops
from convmixer_tf.training.crops import crop_inputs
from convmixer_tf.training.crops import mirrored
from convmixer_tf.training.crops import random_boxes
from convmixer_tf.training.crops import read_crops
from tests.helpers import asymmetric_image
from tests.helpers import jpeg

CONFIG = TrainConfig(
    epochs=2, steps_per_epoch=5, batch_size=4, precision="float32"
)


@pytest.fixture(scope="module")
def images():
    return asymmetric_image(20, 20, batch=7)


def cut(crops, box):
    boxes = tf.constant(box[None], tf.float32)
    return crops.cut(tf.constant([3]), boxes)[0].numpy()


def test_the_whole_view_is_the_center(images):
    crops = Crops(images, 16)
    expected = images[3, 2:18, 2:18]
    np.testing.assert_allclose(cut(crops, crops.whole()), expected, atol=1e-3)
    np.testing.assert_allclose(
        cut(crops, mirrored(crops.whole())), expected[:, ::-1], atol=1e-3
    )


def test_random_views_are_inside_and_half_are_mirrored():
    draws = np.random.default_rng(0).random((400, 4)).astype("float32")
    boxes = random_boxes(tf.constant(draws), True).numpy()
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    heights = boxes[:, 2] - boxes[:, 0]
    widths = boxes[:, 3] - boxes[:, 1]
    np.testing.assert_allclose(heights, abs(widths), atol=1e-6)
    assert 0.8 <= heights.min() < 0.82
    assert 0.98 < heights.max() <= 1
    assert 160 < (widths < 0).sum() < 240
    plain = random_boxes(tf.constant(draws), False).numpy()
    assert (plain[:, 3] > plain[:, 1]).all()


def test_passes_follow_each_other_and_lose_no_image(images):
    """Seven images in batches of four: each appears once in seven."""
    inputs = crop_inputs(CONFIG, Crops(images, 16), np.eye(7, dtype="f"), True)
    context = tf.distribute.InputContext()
    rows = [list(inputs(epoch, 0, context)) for epoch in range(2)]
    labels = np.concatenate([y.numpy().argmax(1) for x in rows for _, y in x])
    assert len(labels) == 40
    passes = labels[:35].reshape(5, 7)
    assert (np.sort(passes) == np.arange(7)).all()
    assert len({tuple(x) for x in passes}) > 1
    assert rows[0][0][0].shape == (4, 16, 16, 3)
    resumed = list(inputs(1, 3, context))
    for (x, y), (again, label) in zip(rows[1][3:], resumed, strict=True):
        np.testing.assert_array_equal(x, again)
        np.testing.assert_array_equal(y, label)


def test_workers_share_the_batches_of_one(images):
    inputs = crop_inputs(CONFIG, Crops(images, 16), np.eye(7, dtype="f"), True)
    alone = next(iter(inputs(0, 0, tf.distribute.InputContext())))[0]
    for worker in range(2):
        context = tf.distribute.InputContext(2, worker, 2)
        part = next(iter(inputs(0, 0, context)))[0]
        np.testing.assert_array_equal(part, alone[worker::2])


def test_images_are_read_with_a_margin(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg())
    dataset = open_files([path])
    crops = read_crops(dataset, 16, 0.8, "exif")
    assert crops.images.shape == (1, 20, 20, 3)
    monkeypatch.setattr("convmixer_tf.training.crops.MEMORY_BYTES", 1000)
    assert read_crops(dataset, 16, 0.8, "exif") is None
