import importlib

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from convmixer_tf.data import RandAugment
from convmixer_tf.data.rand_augment import rand_augment

# The package exports the function under the name of the module.
module = importlib.import_module("convmixer_tf.data.rand_augment")

DRAWS = 10_000


def choose(config):
    draws = tf.random.stateless_uniform([DRAWS, 5], [1, 2])
    branch, value = module._choose(draws, config)
    return branch.numpy(), value.numpy()


def branches():
    """Names of the branches, with the filter for affine ones."""
    pixel = module.OPERATION_NAMES[: len(module._PIXEL_OPERATIONS)]
    affine = module.OPERATION_NAMES[len(module._PIXEL_OPERATIONS) :]
    return [*pixel, *(f"{n} {c}" for n in affine for c in (False, True))]


def test_branches_are_the_named_operations():
    functions = list(module._BRANCHES)
    assert len(functions) == len(branches()) == 20
    for name, function in zip(branches(), functions, strict=True):
        if " " in name:
            name, cubic = name.split()
            assert function.keywords == {"cubic": cubic == "True"}
            function = function.func
        if function.__name__ != "<lambda>":
            assert function.__name__.replace("_", "") == name.lower()


def test_operations_are_drawn_evenly_and_applied_by_half():
    branch, _ = choose(RandAugment())
    count = np.bincount(branch, minlength=21)
    # Each of 15 operations has probability 1/30, split over filters.
    expected = DRAWS * np.array([1 / 30] * 10 + [1 / 60] * 10 + [1 / 2])
    assert stats.chisquare(count, expected).pvalue > 0.001


@pytest.mark.parametrize("probability", [0.0, 0.2, 1.0])
def test_probability(probability):
    branch, _ = choose(RandAugment(probability=probability))
    applied = np.mean(branch < 20)
    assert abs(applied - probability) < 4 * np.sqrt(0.25 / DRAWS)
    assert applied == probability or 0 < probability < 1


def test_magnitude_is_normal_and_clipped():
    branch, value = choose(RandAugment(probability=1.0))
    # Rotations show the magnitude: 3 degrees each.
    rotated = (branch == 10) | (branch == 11)
    level = np.abs(value[rotated]) / 3
    assert level.max() == 10.0
    share = stats.norm.sf(10, 9, 0.5)
    assert np.mean(level == 10) == pytest.approx(share, abs=0.02)
    inside = level[level < 10]
    cut = stats.truncnorm(-18, 2, loc=9, scale=0.5)
    assert stats.kstest(inside, cut.cdf).pvalue > 0.001
    assert np.mean(value[rotated] < 0) == pytest.approx(0.5, abs=0.08)


def test_magnitude_without_deviation_is_constant():
    branch, value = choose(RandAugment(magnitude_std=0.0, probability=1.0))
    rotated = (branch == 10) | (branch == 11)
    np.testing.assert_allclose(np.abs(value[rotated]), 27.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("level", "sign", "increasing", "expected"),
    [
        # facts of rand-m9-mstd0.5-inc1: 1 bit, 26, 99, 1.81 or 0.19, +-27
        # degrees, +-0.27, +-0.405.
        (9, 1, True, [1, 26, 99, 1.81, 27, 0.27, 0.405]),
        (9, -1, True, [1, 26, 99, 0.19, -27, -0.27, -0.405]),
        (10, -1, True, [0, 0, 110, 0.1, -30, -0.3, -0.45]),
        (0, 1, True, [4, 256, 0, 1, 0, 0, 0]),
        (9, 1, False, [3, 230, 99, 1.72, 27, 0.27, 0.405]),
        (0, -1, False, [0, 0, 0, 0.1, 0, 0, 0]),
    ],
)
def test_arguments(level, sign, increasing, expected):
    actual = module.arguments(
        tf.constant([float(level)]), tf.constant([float(sign)]), increasing
    )
    assert len(actual) == len(module.OPERATION_NAMES) == 15
    bits, threshold, addend, factor, degrees, slope, fraction = expected
    np.testing.assert_allclose(
        np.concatenate(actual),
        [0] * 3
        + [bits, threshold, addend]
        + [factor] * 4
        + [degrees]
        + [slope] * 2
        + [fraction] * 2,
        rtol=1e-6,
        atol=1e-6,
    )


@pytest.mark.slow
def test_same_seed_same_result_eagerly_and_in_a_pipeline(photos):
    images = tf.image.random_crop(photos[0], (32, 32, 3), seed=1)
    images = tf.stack([images] * 12)
    config = RandAugment()
    eager = rand_augment(images, [1, 2], config)
    assert eager.dtype == tf.uint8
    assert eager.shape == images.shape
    dataset = tf.data.Dataset.from_tensors(images).repeat(3)
    dataset = dataset.map(
        lambda x: rand_augment(x, [1, 2], config), num_parallel_calls=4
    )
    for augmented in dataset:
        np.testing.assert_array_equal(augmented, eager)
    assert not np.array_equal(eager, rand_augment(images, [1, 3], config))
    # Randomness is per image: few of 12 equal images stay equal.
    assert len({image.numpy().tobytes() for image in eager}) >= 6


@pytest.mark.slow
def test_treats_images_independently(small_photos):
    config = RandAugment(num_ops=3, probability=1.0)
    images = tf.constant(np.concatenate([small_photos] * 8))
    draws = tf.random.stateless_uniform([32, config.num_draws], [3, 4])
    together = module.rand_augment_with(draws, images, config)
    for index in range(0, 32, 5):
        part = slice(index, index + 1)
        alone = module.rand_augment_with(draws[part], images[part], config)
        np.testing.assert_array_equal(alone[0], together[index])


def test_probability_zero_changes_nothing(small_photos):
    config = RandAugment(probability=0.0)
    result = rand_augment(tf.constant(small_photos), [0, 0], config)
    np.testing.assert_array_equal(result, small_photos)


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("rand-m9-mstd0.5-inc1", RandAugment()),
        (
            "rand-m6-n3-mstd1-p0.3",
            RandAugment(6.0, 3, 1.0, increasing=False, probability=0.3),
        ),
        ("rand", RandAugment(10.0, 2, 0.0, increasing=False)),
    ],
)
def test_reads_notation(text, config):
    assert RandAugment.from_string(text) == config


@pytest.mark.parametrize(
    "text", ["augmix-m3", "rand-x3", "rand-m", "rand-m9x", "", "m9"]
)
def test_refuses_other_notations(text):
    with pytest.raises(ValueError, match="must be like 'rand-m9-n2"):
        RandAugment.from_string(text)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("magnitude", 11, "`magnitude` must be from 0 to 10. Received"),
        ("magnitude_std", -1, "`magnitude_std` must be from 0"),
        ("num_ops", 0, "`num_ops` must be a positive integer"),
        ("num_ops", 1.5, "`num_ops` must be a positive integer"),
        ("probability", 1.2, "`probability` must be from 0 to 1"),
    ],
)
def test_refuses_settings(name, value, message):
    with pytest.raises(ValueError, match=message):
        RandAugment(**{name: value})
