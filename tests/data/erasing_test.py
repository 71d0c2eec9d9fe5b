import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from convmixer_tf.data import RandomErasing
from convmixer_tf.data.erasing import random_erase
from convmixer_tf.preprocessing import normalize

COUNT, SIDE = 10_000, 32


@pytest.fixture(scope="module")
def erased():
    """10,000 images of -1000, a value that erased pixels never have."""
    images = tf.fill([COUNT, SIDE, SIDE, 3], -1000.0)
    return random_erase(images, [1, 2], RandomErasing()).numpy()


def find_boxes(erased):
    mask = (erased != -1000).all(-1)
    rows, columns = mask.any(2).sum(1), mask.any(1).sum(1)
    return mask, rows, columns


def test_erases_a_quarter_of_the_images(erased):
    _, rows, _ = find_boxes(erased)
    assert np.mean(rows > 0) == pytest.approx(0.25, abs=4 * 0.00433)


def test_erases_one_full_box(erased):
    mask, rows, columns = find_boxes(erased)
    np.testing.assert_array_equal(mask.sum((1, 2)), rows * columns)
    np.testing.assert_array_equal((erased != -1000).any(-1), mask)


def test_area_and_aspect(erased):
    _, rows, columns = find_boxes(erased)
    rows, columns = rows[rows > 0], columns[columns > 0]
    # The same in NumPy: uniform area, log-uniform aspect ratio, ten attempts at
    # a box smaller than the image.
    random = np.random.default_rng(0)
    area = random.uniform(0.02, 1 / 3, (20_000, 10)) * SIDE**2
    aspect = np.exp(random.uniform(math.log(0.3), -math.log(0.3), (20_000, 10)))
    height = np.round(np.sqrt(area * aspect))
    width = np.round(np.sqrt(area / aspect))
    first = np.argmax((height < SIDE) & (width < SIDE), axis=1)
    height = height[range(20_000), first]
    width = width[range(20_000), first]
    for ours, peer in (
        (rows, height),
        (columns, width),
        (rows * columns, height * width),
        (rows / columns, height / width),
    ):
        assert stats.ks_2samp(ours, peer).pvalue > 1e-4


def test_place_is_uniform(erased):
    mask, rows, columns = find_boxes(erased)
    for axis, length in ((1, rows), (2, columns)):
        some = length > 0
        first = mask.any(3 - axis)[some].argmax(1)
        free = SIDE - length[some]
        assert (first <= free).all()
        assert np.mean(first == 0) > 0.01
        assert np.mean(first == free) > 0.01
        assert np.mean(first / free) == pytest.approx(0.5, abs=0.03)


def test_noise_is_normal_after_normalization(erased):
    noise = normalize(erased[(erased != -1000).all(-1)])
    for channel in range(3):
        sample = noise[::37, channel]
        assert stats.kstest(sample, stats.norm.cdf).pvalue > 0.001
    # Independent between pixels and channels.
    assert abs(np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1]) < 0.01
    assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.01


def test_other_modes():
    images = tf.fill([200, SIDE, SIDE, 3], -1000.0)
    const = RandomErasing(probability=1.0, mode="const")
    values = normalize(random_erase(images, [0, 0], const).numpy())
    inside = values > -4
    assert inside.any((1, 2, 3)).mean() > 0.99
    np.testing.assert_allclose(values[inside], 0.0, atol=1e-6)

    rand = RandomErasing(probability=1.0, mode="rand")
    values = normalize(random_erase(images, [0, 0], rand).numpy())
    colors = [np.unique(x[x[..., 0] > -8], axis=0) for x in values]
    assert {len(color) for color in colors if len(color)} == {1}
    assert stats.kstest(np.concatenate(colors)[:, 0], "norm").pvalue > 0.001


def test_keeps_the_rest_and_repeats_with_the_seed():
    images = tf.random.stateless_uniform([9, 20, 30, 3], [0, 0]) * 255.0
    config = RandomErasing(probability=1.0)
    first = random_erase(images, [4, 5], config)
    changed = np.any(first != images, axis=-1)
    assert 0.01 < changed.mean() < 0.35
    traced = tf.function(lambda x: random_erase(x, [4, 5], config))
    np.testing.assert_allclose(traced(images), first, rtol=1e-6)
    assert np.any(random_erase(images, [4, 6], config) != first)
    never = random_erase(images, [4, 5], RandomErasing(probability=0.0))
    np.testing.assert_array_equal(never, images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probability": -0.1}, "`probability` must be from 0 to 1"),
        ({"max_area": 1.1}, "`max_area` must be from 0 to 1"),
        ({"min_area": 0.5}, "`min_area` must be from 0 to 0.333"),
        ({"min_aspect": 2.0}, "`min_aspect` must be from 0.01 to 1"),
        ({"mode": "gray"}, "`mode` must be one of 'pixel', 'rand', 'const'"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        RandomErasing(**settings)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_box_in_any_number_of_channels(channels, mode, dtype):
    images = tf.cast(tf.fill([40, 24, 20, channels], -1000.0), dtype)
    config = RandomErasing(probability=1.0, mode=mode)
    erased = random_erase(images, [3, 4], config)
    assert (erased.dtype, erased.shape) == (images.dtype, images.shape)
    mask, rows, columns = find_boxes(erased.numpy())
    assert (rows > 0).mean() > 0.9
    np.testing.assert_array_equal(mask.sum((1, 2)), rows * columns)
    np.testing.assert_array_equal((erased.numpy() != -1000).any(-1), mask)


def test_statistics_of_other_channels_are_those_of_the_model():
    images = tf.zeros([4, 24, 20, 12])
    config = RandomErasing(probability=1.0, mode="const")
    erased = random_erase(images, [3, 4], config).numpy()
    boxes = erased[erased.any(-1)]
    expected = np.tile(255 * np.float32(config.mean), 4)
    np.testing.assert_allclose(boxes, np.broadcast_to(expected, boxes.shape))
    erased = random_erase(images[..., :1], [3, 4], config).numpy()
    np.testing.assert_allclose(erased[erased > 0], 255 * np.mean(config.mean))
    config = RandomErasing(1.0, mode="const", mean=(0.5,), std=(0.25,))
    erased = random_erase(images, [3, 4], config).numpy()
    np.testing.assert_allclose(erased[erased > 0], 127.5)


@pytest.mark.parametrize(
    ("images", "settings", "message"),
    [
        (tf.zeros([2, 8, 8, 3], tf.uint8), {}, r"float pixels in \[0, 255\]"),
        (tf.zeros([8, 8, 3]), {}, "must be a batch of shape"),
        (
            tf.zeros([2, 8, 8, 4]),
            {"mean": (0.1, 0.2, 0.3)},
            "`mean` of `RandomErasing` must be one number or one for .* 4 ch",
        ),
    ],
)
def test_refuses_images(images, settings, message):
    with pytest.raises(ValueError, match=message):
        random_erase(images, [0, 0], RandomErasing(**settings))


def test_refuses_an_unknown_number_of_channels():
    spec = tf.TensorSpec([None, 8, 8, None])
    erase = tf.function(lambda x: random_erase(x, [0, 0], RandomErasing()))
    with pytest.raises(ValueError, match="a known number of channels"):
        erase.get_concrete_function(spec)
