"""Parts of a depthwise convolution add up to the whole, at the borders too."""

import itertools

import keras
import numpy as np
import pytest

from convmixer_tf.export.depthwise_parts import Part
from convmixer_tf.export.depthwise_parts import offsets
from convmixer_tf.export.depthwise_parts import phases
from convmixer_tf.export.depthwise_split import depthwise
from convmixer_tf.export.split_rule import choose_parts
from tests.helpers import relative_difference


def whole(x, kernel, bias):
    """In NumPy, float64."""
    size, (_, height, width, _) = len(kernel), x.shape
    before = (size - 1) // 2
    pad = (before, size - 1 - before)
    x = np.pad(np.float64(x), [(0, 0), pad, pad, (0, 0)])
    taps = itertools.product(range(size), repeat=2)
    return bias + sum(
        x[:, i : i + height, j : j + width] * kernel[i, j] for i, j in taps
    )


def rows_and_blocks(size):
    taps = offsets(size)
    rows = tuple(Part((row,), taps) for row in taps)
    cut = [taps[i : i + 3] for i in range(0, size, 3)]
    return rows, tuple(itertools.starmap(Part, itertools.product(cut, cut)))


@pytest.mark.parametrize("shape", [(11, 7), (8, 9), (2, 3), (1, 1)])
@pytest.mark.parametrize("size", [6, 7, 8, 9])
def test_parts_add_up_to_the_whole(size, shape):
    rng = np.random.default_rng(size)
    kernel, bias = rng.normal(size=(size, size, 3)), rng.normal(size=3)
    images = rng.normal(size=(2, *shape, 3)).astype("float32")
    splits = [
        choose_parts("litert", size),
        choose_parts("litert_int8", size),
        phases(size, 2, 2),
        *rows_and_blocks(size),
    ]
    x = keras.Input((*shape, 3))
    outputs = [
        depthwise(x, kernel, bias, parts, f"split_{i}")
        for i, parts in enumerate(splits)
    ]
    expected = whole(images, kernel, bias)
    for output in keras.Model(x, outputs)(images):
        assert relative_difference(output, expected) < 1e-6


@pytest.mark.parametrize("size", range(1, 17))
def test_every_tap_is_in_one_part(size):
    taps = sorted(itertools.product(offsets(size), repeat=2))
    for steps in itertools.product((1, 2, 3, 20), repeat=2):
        parts = phases(size, *steps)
        dealt = [
            tap for part in parts for tap in itertools.product(*vars_of(part))
        ]
        assert sorted(dealt) == taps
    assert len(phases(size, 1, 1)) == 1


def vars_of(part):
    return part.rows, part.columns


def test_even_kernels_look_further_ahead():
    assert offsets(4) == (-1, 0, 1, 2)
    assert offsets(5) == (-2, -1, 0, 1, 2)


def test_an_open_size():
    x = keras.Input((None, None, 2))
    kernel, bias = np.random.default_rng(0).normal(size=(7, 7, 2)), np.ones(2)
    outputs = [
        depthwise(x, kernel, bias, parts, f"split_{i}")
        for i, parts in enumerate([phases(7, 3, 1), *rows_and_blocks(7)])
    ]
    model = keras.Model(x, outputs)
    for shape in ((5, 9), (12, 2)):
        images = np.random.default_rng(1).normal(size=(1, *shape, 2))
        expected = whole(images, kernel, bias)
        for output in model(images.astype("float32")):
            assert relative_difference(output, expected) < 1e-6
