import dataclasses
import hashlib

import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.data import Augmentation
from convmixer_tf.data import Mixing
from convmixer_tf.data import RandomErasing
from convmixer_tf.data import open_dataset
from convmixer_tf.data import train_batches
from convmixer_tf.data.augmentation import AUGMENTATIONS
from convmixer_tf.data.loading import Shard
from tests.helpers import ROOT
from tests.helpers import run_python

# For images and for batches. RandAugment's operations take long to trace.
QUICK = Augmentation(mixing=Mixing(), erasing=RandomErasing())
PLAIN = Augmentation()


@pytest.fixture(scope="module")
def dataset(image_folder):
    return open_dataset(image_folder, "train")


def run(dataset, augmentation=QUICK, size=24, batch=4, **arguments):
    arguments = {"seed": 1, "epoch": 0, **arguments}
    batches = train_batches(dataset, augmentation, size, batch, **arguments)
    return [(x.numpy(), y.numpy()) for x, y in batches]


@pytest.fixture(scope="module")
def whole(dataset):
    """The batches of an epoch."""
    return run(dataset)


def assert_equal(first, second):
    assert len(first) == len(second)
    for (x, y), (other_x, other_y) in zip(first, second, strict=True):
        np.testing.assert_array_equal(x, other_x)
        np.testing.assert_array_equal(y, other_y)


# "light" is "imagenet" with other values.
@pytest.mark.slow
@pytest.mark.parametrize(
    "augmentation", ["imagenet", "cifar10", "keras_cv", "none"]
)
def test_batches_of_every_kind(dataset, augmentation):
    augmentation = AUGMENTATIONS[augmentation]
    if augmentation.keras_cv:
        pytest.importorskip("keras_cv", reason="needs keras-cv")
    if operations := augmentation.rand_augment:
        operations = dataclasses.replace(operations, num_ops=1)
        augmentation = dataclasses.replace(
            augmentation, rand_augment=operations
        )
    batches = train_batches(dataset, augmentation, 24, 12, seed=0, epoch=0)
    assert len(batches) == 3
    images, labels = batches.element_spec
    assert images.shape == (12, 24, 24, 3)
    is_float = augmentation.erasing or augmentation.keras_cv
    assert images.dtype == (tf.float32 if is_float else tf.uint8)
    assert labels.shape == (12, 4)
    for images, labels in batches:
        assert np.isfinite(images).all()
        np.testing.assert_allclose(np.sum(labels, 1), 1.0, atol=1e-6)
        assert np.min(labels) >= 0
        if not augmentation.erasing:
            assert np.min(images) >= 0
            assert np.max(images) <= 255


@pytest.mark.slow
def test_every_image_once_in_an_epoch(dataset):
    class_of = [int(label) for label in dataset.labels]
    batches = run(dataset, Augmentation(flip=0.0), batch=5)
    assert len(batches) == 8
    labels = np.concatenate([y for _, y in batches]).argmax(1)
    assert sorted(labels) == sorted(class_of)
    images = np.concatenate([x for x, _ in batches])
    assert len({image.tobytes() for image in images}) == 40


@pytest.mark.slow
def test_other_epochs_and_seeds_give_other_batches(dataset, whole):
    for change in ({"epoch": 1}, {"seed": 2}):
        other = run(dataset, **change)
        assert not np.array_equal(whole[0][0], other[0][0])
        assert not np.array_equal(whole[0][1], other[0][1])


RESTART = """
import sys
import tensorflow as tf
tf.config.threading.set_inter_op_parallelism_threads(1)
tf.config.threading.set_intra_op_parallelism_threads(1)
from convmixer_tf.data import open_dataset
from tests.data.training_test import digest, run
print(digest(run(open_dataset(sys.argv[1], "train"))))
"""


def digest(batches):
    return hashlib.sha256(
        b"".join(x.tobytes() + y.tobytes() for x, y in batches)
    ).hexdigest()


@pytest.mark.slow
def test_same_batches_after_a_restart(whole, image_folder):
    # Another process, with one thread for each kind of work.
    printed = run_python(RESTART, image_folder, PYTHONPATH=str(ROOT))
    assert printed.strip() == digest(whole)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [6, 10])
def test_continues_at_a_step(dataset, whole, steps):
    assert_equal(whole[steps:], run(dataset, skip_steps=steps))


@pytest.mark.slow
def test_workers_and_replicas_divide_the_same_batches(dataset):
    """Four replicas of one worker, or two of each of two workers."""

    def worker(index, **arguments):
        shard = Shard(num_workers=2, worker=index)
        return run(dataset, mixed, replicas=2, shard=shard, **arguments)

    mixed = Augmentation(mixing=Mixing())
    together = run(dataset, mixed, replicas=4)
    assert len(together) == 2
    apart = [worker(index) for index in range(2)]
    for step, tensors in enumerate(together):
        for kind, tensor in enumerate(tensors):  # Images and labels.
            parts = np.split(tensor, 4)
            for index in range(2):
                np.testing.assert_array_equal(
                    apart[index][step][kind],
                    np.concatenate([parts[index], parts[index + 2]]),
                )
    assert_equal(apart[1][1:], worker(1, skip_steps=1))


@pytest.mark.slow
def test_replicas_mix_on_their_own(dataset):
    augmentation = Augmentation(mixing=Mixing(cutmix_alpha=0.0))
    shares = set()
    for _, labels in run(dataset, augmentation, batch=5, replicas=2):
        # The middle one of five is its own partner. Others have at most two
        # classes, and a replica has one mixing ratio.
        for part in np.split(labels, 2):
            mixed = {round(float(v), 5) for v in part.max(1) if v < 1}
            assert len(mixed) <= 1
            shares |= mixed
    assert len(shares) >= 3


@pytest.mark.slow
def test_repeated_augmentation(dataset, whole):
    augmentation = dataclasses.replace(Augmentation(), repeats=2)
    images, labels = run(dataset, augmentation, batch=40)[0]
    assert len({image.tobytes() for image in images}) == 40
    np.testing.assert_array_equal(labels[::2], labels[1::2])
    batches = train_batches(dataset, augmentation, 24, 4, seed=1, epoch=0)
    assert len(batches) == len(whole)


@pytest.fixture
def broken_folder(tmp_path, save, photos):
    images = {
        f"train/a/{index}.jpg": photos[0][index : index + 90, :70]
        for index in range(9)
    }
    save(
        tmp_path,
        {
            **images,
            "train/b/text.jpg": b"This is no image.",
            "train/b/empty.png": b"",
            "train/b/größe.png": photos[1][:20, :30],
            "train/b/one pixel.png": photos[1][:1, :1],
            "train/b/wide.png": np.repeat(photos[1][:40, :100], 100, axis=1),
        },
    )
    whole = (tmp_path / "train/a/3.jpg").read_bytes()
    (tmp_path / "train/b/truncated.jpg").write_bytes(whole[:400])
    (tmp_path / "train/empty").mkdir()
    return tmp_path


@pytest.mark.slow
def test_skips_names_and_counts_the_unreadable(broken_folder, caplog):
    dataset = open_dataset(broken_folder, "train")
    assert len(dataset) == 15
    batches = run(dataset, PLAIN, size=16, batch=5)
    assert len(batches) == 3
    assert all(np.isfinite(images).all() for images, _ in batches)
    lines = caplog.messages
    assert lines.pop(0).startswith("Ignored empty folders")
    assert len(lines) == 3
    assert [line.split(":")[0] for line in sorted(lines)] == [
        f"Skipped an unreadable image, number {n} so far" for n in (1, 2, 3)
    ]
    named = {line.split("/")[-1].split(". It is ")[0] for line in lines}
    assert named == {"text.jpg", "empty.png", "truncated.jpg"}
    assert any(line.endswith("empty.png. It is empty.") for line in lines)
    # The same after skipping a step.
    rest = run(dataset, PLAIN, size=16, batch=5, skip_steps=1)
    assert_equal(batches[1:], rest)


@pytest.mark.slow
def test_fails_if_nothing_is_readable(tmp_path, save):
    save(tmp_path, {f"train/a/{i}.jpg": b"No image." for i in range(4)})
    dataset = open_dataset(tmp_path, "train")
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="No image of a batch could be"
    ):
        run(dataset, PLAIN, batch=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "`image_size` must be a positive integer"),
        ({"batch": 0}, "`batch_size` must be a positive integer"),
        ({"replicas": 0}, "`replicas` must be a positive integer"),
        ({"batch": 41}, "small enough for one batch of the 40 images on 1"),
        ({"skip_steps": 11}, "`skip_steps` must be from 0 to 10, the number"),
        ({"skip_steps": -1}, "`skip_steps` must be from 0 to 10, the number"),
        ({"seed": -1}, "`seed` must be a non-negative integer"),
        ({"epoch": -1}, "`epoch` must be a non-negative integer"),
    ],
)
def test_refuses_arguments(dataset, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(dataset, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0), "`num_workers` must be a positive integer"),
        ((2, 2), "`worker` must be from 0 to num_workers - 1 = 1. Received"),
    ],
)
def test_refuses_shards(arguments, message):
    with pytest.raises(ValueError, match=message):
        Shard(*arguments)


@pytest.mark.slow
def test_flips_alternate_from_epoch_to_epoch(dataset):
    changes = {"flip": 0.5, "alternate_flips": True}
    alternating = dataclasses.replace(AUGMENTATIONS["none"], **changes)

    def epoch_of(number, augmentation=alternating):
        count = len(dataset)
        arguments = {"batch": count, "seed": 1, "epoch": number}
        ((images, _),) = run(dataset, augmentation, **arguments)
        order = np.random.default_rng([1, number]).permutation(count)
        return images[np.argsort(order)]

    first, second, third = map(epoch_of, range(3))
    np.testing.assert_array_equal(first[:, :, ::-1], second)
    np.testing.assert_array_equal(first, third)
    pairs = zip(first, epoch_of(0, AUGMENTATIONS["none"]), strict=True)
    flipped = [not np.array_equal(*pair) for pair in pairs]
    assert 0 < sum(flipped) < len(dataset)


def test_alternate_flips_need_an_even_chance():
    with pytest.raises(ValueError, match=r"`alternate_flips` needs flip=0\.5"):
        Augmentation(flip=0.2, alternate_flips=True)
