import dataclasses
import os
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.data import decode_image
from convmixer_tf.data import evaluation_batches
from convmixer_tf.data import open_dataset
from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.data.loading import Shard
from convmixer_tf.data.samples import open_files


@pytest.fixture(scope="module")
def dataset(image_folder):
    return open_dataset(image_folder, "train")


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "num_workers"), [(64, 1), (7, 2)])
def test_every_image_once(dataset, batch_size, num_workers):
    expected = [
        resize_and_center_crop(decode_image(content), 24).numpy()
        for content in dataset.contents
    ]
    images, labels, lengths = [], [], set()
    for worker in range(num_workers):
        batches = evaluation_batches(
            dataset, 24, batch_size, shard=Shard(num_workers, worker)
        )
        lengths.add(len(batches))
        for x, y, weight in batches:
            assert x.shape == (batch_size, 24, 24, 3)
            assert x.dtype == weight.dtype == tf.float32
            assert set(np.unique(weight)) <= {0.0, 1.0}
            assert not np.any(x[weight == 0])
            images += list(x[weight == 1].numpy())
            labels += list(y[weight == 1].numpy())
    assert len(lengths) == 1
    assert len(images) == 40
    order = np.concatenate(
        [np.arange(40)[worker::num_workers] for worker in range(num_workers)]
    )
    np.testing.assert_array_equal(images, np.array(expected)[order])
    np.testing.assert_array_equal(labels, dataset.labels.numpy()[order])


@pytest.mark.slow
def test_workers_without_images_get_padding():
    digits = open_dataset("digits", "test")
    few = dataclasses.replace(digits, names=digits.names[:2])
    for worker in (1, 2):
        (batch,) = evaluation_batches(few, 8, 4, shard=Shard(3, worker))
        assert np.sum(batch[2]) == (worker < 2)


@pytest.mark.slow
def test_keras_ignores_the_padding(dataset):
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(4),
        ]
    )
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
    )
    exact = model.evaluate(evaluation_batches(dataset, 16, 40), verbose=0)
    padded = model.evaluate(evaluation_batches(dataset, 16, 33), verbose=0)
    assert padded[1] == pytest.approx(exact[1], abs=1e-6)


@pytest.fixture
def broken(tmp_path, save, photos):
    save(
        tmp_path,
        {
            "test/a/1.png": photos[0][:50, :60],
            "test/a/été.jpg": b"This is no image.",
            "test/b/3.png": photos[1][:1, :1],
            "test/b/4.png": photos[1][:40, :9],
        },
    )
    return open_dataset(tmp_path, "test")


@pytest.mark.slow
def test_names_an_unreadable_image(broken):
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="Unreadable image"
    ) as error:
        list(evaluation_batches(broken, 16, 3))
    assert "t\\303\\251.jpg" in str(error.value) or "été" in str(error.value)


def test_names_an_unreadable_image_whose_name_is_not_utf_8(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"kap\xfctt.jpg")
    with open(path, "wb") as file:
        file.write(b"This is no image.")
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="Unreadable image"
    ) as error:
        list(evaluation_batches(open_files([os.fsdecode(path)]), 16, 3))
    assert re.search("kap.*tt.jpg", str(error.value))


def test_skips_an_unreadable_image_if_asked(broken, caplog):
    batches = evaluation_batches(broken, 16, 3, skip_unreadable=True)
    images, labels, weights = zip(*batches, strict=True)
    np.testing.assert_array_equal(np.concatenate(weights), [1, 0, 1, 1, 0, 0])
    np.testing.assert_array_equal(np.concatenate(labels)[[0, 2, 3]], [0, 1, 1])
    assert not np.any(images[0][1])
    (line,) = caplog.messages
    assert line.startswith("Skipped an unreadable image, number 1 so far: ")
    assert re.search(r"été\.jpg\. It is .+\.$", line)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1), "`image_size` must be a positive integer"),
        ((1, 0), "`batch_size` must be a positive integer"),
    ],
)
def test_refuses_arguments(dataset, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluation_batches(dataset, *arguments)


def test_refuses_a_crop_fraction(dataset):
    with pytest.raises(ValueError, match="`crop_fraction` must be from"):
        evaluation_batches(dataset, 8, 1, crop_fraction=1.2)
