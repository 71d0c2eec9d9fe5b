"""The same random numbers give the images that `convmixer_tf.data` makes."""

import dataclasses
import importlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import stats

from convmixer_tf import data
from convmixer_tf.data import erasing
from convmixer_tf.data import mixing
from convmixer_tf.data.color_jitter import color_jitter_with
from convmixer_tf.data.datasets import ImageList

# The package re-exports the function under the name of the module.
rand_augment = importlib.import_module("convmixer_tf.data.rand_augment")


@pytest.fixture
def augmentation():
    return importlib.import_module("jax_cifar10.augmentation")


@pytest.fixture
def operations():
    return importlib.import_module("jax_cifar10.operations")


def as_pillow(pixels):
    return [Image.fromarray(image) for image in pixels]


def as_pixels(images):
    return np.stack([np.asarray(image, int) for image in images])


def uniform(*shape):
    return np.random.default_rng(1).random(shape, np.float32)


@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("index", range(15))
def test_each_operation(augmentation, pixels, index, increasing):
    config = data.RandAugment(6.0, 1, 3.0, increasing, probability=1.0)
    draws = uniform(len(pixels), config.num_draws)
    draws[:, 0] = (index + 0.5) / 15
    expected = rand_augment.rand_augment_with(draws, pixels, config).numpy()
    actual = as_pixels(
        augmentation.rand_augment(as_pillow(pixels), draws, config)
    )
    error = np.abs(actual - expected.astype(int))
    assert not np.array_equal(actual, pixels)
    if index < 10:
        assert error.max() == 0
    else:  # The bounds of tests/data/operations_test.py.
        assert error.mean() < 0.2
        assert (error > 1).mean() < 0.001


def test_operations_are_in_the_same_order(operations):
    names = [name.lower() for name in rand_augment.OPERATION_NAMES]
    assert len(names) == operations.NUM_OPERATIONS
    for index, name in enumerate(names[10:]):
        function = operations._AFFINE_OPERATIONS[index]
        assert function.__name__.replace("_", "") == name
    assert (
        operations.FILL
        == importlib.import_module("convmixer_tf.data.operations").FILL
    )


@pytest.mark.parametrize(
    "config",
    [data.RandAugment(), data.RandAugment(4.0, 1, 0.0, False, 0.2)],
    ids=["deviating", "constant"],
)
def test_the_same_operations_are_chosen(operations, config):
    draws = uniform(5000, 5)
    draws[:2, 3] = 0, 1 - 2**-24
    branch, value = (x.numpy() for x in rand_augment._choose(draws, config))
    index, applied, actual, cubic = operations.choose(draws, config)
    affine = np.maximum(index - 10, 0) + ((index >= 10) & cubic)
    np.testing.assert_array_equal(
        np.where(applied, index + affine, 20), np.where(branch < 20, branch, 20)
    )
    np.testing.assert_allclose(actual, value, rtol=2e-6, atol=1e-6)
    assert np.mean(applied) == pytest.approx(config.probability, abs=0.03)


@pytest.mark.parametrize("interpolation", ["random", "bilinear", "bicubic"])
@pytest.mark.parametrize("min_area", [0.08, 0.75, 1.0])
def test_crop_and_flip(augmentation, pixels, interpolation, min_area):
    config = data.RandomResizedCrop(
        min_area=min_area, interpolation=interpolation
    )
    pixels = pixels[:12]
    draws = uniform(len(pixels), config.num_draws)
    flip = np.arange(len(pixels)) % 2 == 0
    expected = [
        config(tf.io.encode_png(image), 32, draws[i], flip[i]).numpy()
        for i, image in enumerate(pixels)
    ]
    actual = as_pixels(augmentation.random_crop(pixels, draws, flip, config))
    assert np.abs(actual - np.array(expected, int)).max() <= 1


@pytest.mark.parametrize(
    ("height", "width", "aspect"), [(32, 32, 0.75), (37, 50, 0.75), (8, 90, 1)]
)
def test_crop_boxes(augmentation, height, width, aspect):
    config = data.RandomResizedCrop(min_area=0.3, min_aspect=aspect)
    draws = uniform(2000, config.num_draws)
    expected = tf.vectorized_map(
        lambda x: tf.stack(config._box(height, width, x)), tf.constant(draws)
    )
    actual = augmentation.crop_boxes(draws, height, width, config)
    differ = np.any(np.array(actual) != expected.numpy(), axis=1)
    assert differ.mean() <= 0.002  # The last bit of an exponential.


def test_color_jitter(augmentation, pixels):
    config = data.ColorJitter(0.2, 0.3, 0.4)
    draws = uniform(len(pixels), config.num_draws)
    expected = color_jitter_with(draws, pixels, config).numpy().astype(int)
    actual = as_pixels(
        augmentation.color_jitter(as_pillow(pixels), draws, config)
    )
    error = np.abs(actual - expected)
    assert error.mean() < 0.01
    assert error.max() <= 2


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_labels(augmentation, smoothing):
    labels = np.array([3, 0, 9])
    expected = data.smooth_labels(labels, 10, smoothing)
    actual = augmentation.smooth_labels(labels, 10, smoothing)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("is_cut", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.13, 0.5, 0.97])
def test_mixing(augmentation, pixels, monkeypatch, is_cut, share):
    labels = np.eye(len(pixels), dtype="float32")
    for centre in ((0.5, 0.4), (0.02, 0.99)):
        draw = tf.constant([share]), tf.constant([is_cut]), tf.constant(centre)
        monkeypatch.setattr(
            mixing, "_draw", lambda *_, draw=draw: (*draw[:2], draw[2][None])
        )
        expected = data.mix(
            tf.constant(pixels), tf.constant(labels), [0, 0], data.Mixing()
        )
        actual = augmentation.mix(
            pixels, labels, share, is_cut, np.float32(centre)
        )
        assert actual[0].dtype == np.uint8
        np.testing.assert_array_equal(actual[0], expected[0])
        np.testing.assert_allclose(actual[1], expected[1], atol=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        data.Mixing(),
        data.Mixing(0.2, 1.0, probability=0.7, cutmix_probability=0.3),
        data.Mixing(0.0, 1.0),
        data.Mixing(0.4, 0.0),
    ],
)
def test_mixing_is_drawn_as_there(augmentation, config):
    random = np.random.default_rng(0)
    drawn = [augmentation.draw_mixing(random, config) for _ in range(3000)]
    share, is_cut, centre = (np.array(x) for x in zip(*drawn, strict=True))
    there = [x.numpy() for x in mixing._draw(3000, [1, 2], config)]
    assert np.mean(is_cut) == pytest.approx(np.mean(there[1]), abs=0.04)
    assert np.mean(share == 0) == pytest.approx(
        np.mean(there[0] == 0), abs=0.04
    )
    for cut in (True, False):
        ours, theirs = share[is_cut == cut], there[0][there[1] == cut]
        assert bool(len(ours)) == bool(len(theirs))
        if len(ours):
            assert stats.ks_2samp(ours, theirs).pvalue > 1e-3
    assert stats.kstest(centre.ravel(), "uniform").pvalue > 1e-3


def test_erased_boxes(augmentation):
    config = data.RandomErasing(probability=0.6)
    seed = tf.constant([1, 2])
    draws = tf.random.stateless_uniform([2000, 23], seed).numpy()
    expected = erasing._draw_boxes(2000, 32, 40, seed, config)
    expected = np.stack([x.numpy() for x in expected], axis=1)
    actual = np.array(augmentation.erased_boxes(draws, 32, 40, config))
    differ = np.any(actual != expected, axis=1)
    # Where a box has no rows, it does not matter where it would be.
    differ &= (actual[:, 2] > 0) | (expected[:, 2] > 0)
    assert differ.mean() <= 0.002
    assert np.mean(actual[:, 2] > 0) == pytest.approx(0.6, abs=0.04)


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
def test_what_is_put_into_erased_boxes(augmentation, mode):
    config = data.RandomErasing(
        probability=1.0, mode=mode, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3)
    )
    images = np.full((400, 32, 32, 3), -1e6, np.float32)
    recipe = data.Recipe(erasing=config)
    random = np.random.default_rng(0)
    erased = augmentation.erase(images, random, recipe)
    values = [x[x[..., 0] > -1e5] for x in erased]
    assert min(map(len, values)) > 0
    z = [(x / 255 - config.mean) / config.std for x in values]
    if mode == "const":
        assert np.abs(np.concatenate(z)).max() < 1e-5
    else:
        if mode == "rand":
            assert max(np.ptp(x, axis=0).max() for x in z) < 1e-5
            z = [x[:1] for x in z]
        z = np.concatenate(z).ravel()[:20_000]
        assert stats.kstest(z, "norm").pvalue > 1e-3


@pytest.fixture
def augmenter(augmentation, pixels):
    """Makes an `Augmenter` of the photographs."""
    images = importlib.import_module("jax_cifar10.images")
    dataset = images.Images(pixels, np.arange(len(pixels)) % 5)

    def make(name="imagenet", batch_size=8, seed=0, **changes):
        recipe = dataclasses.replace(data.get_recipe(name), **changes)
        return augmentation.Augmenter(dataset, recipe, 5, batch_size, seed)

    return make


def same(left, right):
    return all(map(np.array_equal, left, right))


def test_a_batch_depends_on_its_place_alone(augmenter):
    forward = augmenter()
    batches = [forward.batch(*divmod(i, 8)) for i in range(16)]
    backward = augmenter()
    for i in reversed(range(16)):
        assert same(backward.batch(*divmod(i, 8)), batches[i])
    assert not same(batches[0], batches[8])
    assert not same(batches[0], augmenter(seed=1).batch(0, 0))
    pixels, labels = batches[0]
    assert pixels.dtype == labels.dtype == np.float32
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-5)


def test_an_image_does_not_depend_on_its_batch(augmenter):
    small = augmenter("cifar10", 8, erasing=None)
    large = augmenter("cifar10", 16, erasing=None)
    parts = [small.batch(3, 2), small.batch(3, 3)]
    together = [np.concatenate(part) for part in zip(*parts, strict=True)]
    assert together[0].dtype == np.uint8
    assert same(large.batch(3, 1), together)


def test_the_order_is_that_of_the_other_recipe(augmenter, pixels):
    plain = augmenter("none")
    dataset = ImageList(
        names=tf.constant([""] * len(pixels)),
        labels=tf.zeros(len(pixels), tf.int64),
        class_names=("a",),
    )
    for epoch in (0, 4):
        order = [
            int(example["record"]) for example in dataset.examples(0, epoch)
        ]
        seen = np.concatenate([plain.batch(epoch, i)[0] for i in range(8)])
        np.testing.assert_array_equal(seen, pixels[order])


def test_draws_are_uniform(augmenter):
    one = augmenter()
    one.batch(0, 0)
    assert one._draws.shape == (64, 1 + 23 + 10)
    assert one._draws.dtype == np.float32
    assert stats.kstest(one._draws.ravel(), "uniform").pvalue > 1e-3
