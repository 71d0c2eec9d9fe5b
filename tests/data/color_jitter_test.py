import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from PIL import ImageEnhance

from convmixer_tf.data import ColorJitter
from convmixer_tf.data.color_jitter import color_jitter
from convmixer_tf.data.color_jitter import color_jitter_with

ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def test_equals_pillow_in_every_order(small_photos):
    config = ColorJitter(0.2, 0.3, 0.4)
    orders = list(itertools.permutations(range(3)))
    for index, order in enumerate(orders):
        parts = [(index + 0.5) / 6, 0.9, 0.25, 0.6]
        factors = [1 + 0.2 * 0.8, 1 - 0.3 * 0.5, 1 + 0.4 * 0.2]
        image = Image.fromarray(small_photos[0])
        for step in order:
            image = ENHANCERS[step](image).enhance(factors[step])
        actual = color_jitter_with(
            tf.constant([parts]), tf.constant(small_photos[:1]), config
        )
        error = np.abs(actual[0] - np.asarray(image, int))
        assert np.mean(error) < 0.01
        assert np.max(error) <= 2


def test_seed_decides(small_photos):
    config = ColorJitter()
    first = color_jitter(tf.constant(small_photos), [1, 2], config)
    again = color_jitter(tf.constant(small_photos), [1, 2], config)
    other = color_jitter(tf.constant(small_photos), [1, 3], config)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    # Images differ in their factors.
    same = tf.constant(small_photos[[0, 0]])
    jittered = color_jitter(same, [1, 2], config)
    assert not np.array_equal(jittered[0], jittered[1])


def test_zero_changes_nothing(small_photos):
    none = ColorJitter(0.0, 0.0, 0.0)
    result = color_jitter(tf.constant(small_photos), [1, 2], none)
    np.testing.assert_array_equal(result, small_photos)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_refuses_settings(name):
    with pytest.raises(ValueError, match=f"`{name}` must be from 0 to 1"):
        ColorJitter(**{name: 1.5})
