"""Tests pictures of kernels, pixel by pixel where possible."""

import numpy as np
import pytest

from convmixer_tf import ConvMixer
from convmixer_tf.analysis.filters import _scaled
from convmixer_tf.analysis.filters import _strongest
from convmixer_tf.analysis.filters import save_depthwise_filters
from convmixer_tf.analysis.filters import save_patch_filters
from convmixer_tf.analysis.pictures import tile


def test_the_strongest_first_each_in_its_scale():
    kernels = np.array([[[0.1, 0]], [[-3, 2]], [[1, -1]], [[0, 0]]], float)
    strongest = _strongest(kernels)
    np.testing.assert_array_equal(strongest[:2], kernels[[1, 2]])
    scaled = _scaled(strongest)
    np.testing.assert_allclose(scaled[0], [[-1, 2 / 3]])
    np.testing.assert_array_equal(scaled[3], [[0, 0]])


def test_tiles_lie_in_rows():
    page = tile(np.arange(3)[:, None, None], 2, fill=9)
    assert page.shape == (36 + 5 + 36, 36 + 5 + 36)
    np.testing.assert_array_equal(page[[0, 0, 41], [0, 76, 0]], [0, 1, 2])
    assert (page[36:41] == 9).all()
    assert (page[41:, 41:] == 9).all()


@pytest.mark.parametrize("channels", [1, 3, 12])
def test_patch_filters(tmp_path, read_png, channels):
    model = ConvMixer(10, 1, 3, 4, input_shape=(16, 16, channels))
    kernel = np.zeros((4, 4, channels, 10), np.float32)
    kernel[:, :2], kernel[:, 2:] = 1, -1
    kernel[..., 0, 0] += 1  # The strongest, and more red.
    model.get_layer("patch_embed").conv.kernel.assign(kernel)
    path = tmp_path / "filters.png"
    save_patch_filters(path, model, columns=5)
    pixels = np.int32(read_png(path))
    colored = (np.ptp(pixels, axis=-1) > 60).sum()
    assert colored > 500 if channels == 3 else colored == 0
    whites, blacks = (pixels == 255).all(-1), (pixels == 0).all(-1)
    assert whites.mean() > 0.4
    assert blacks.mean() > 0.25


def test_depthwise_filters(tmp_path, read_png):
    model = ConvMixer(12, 9, 5, 4, input_shape=(16, 16, 3))
    for i in range(9):
        kernel = np.zeros((5, 5, 12, 1), np.float32)
        kernel[:2] = -1 if i == 0 else 1
        model.get_layer(f"block_{i}").depthwise.kernel.assign(kernel)
    path = tmp_path / "all.png"
    save_depthwise_filters(path, model, columns=12)
    height = len(read_png(path))
    save_depthwise_filters(path, model, [0], columns=12, overwrite=True)
    pixels = np.int32(read_png(path))
    # Eight of the nine blocks by default.
    assert 5 * len(pixels) < height < 8 * len(pixels)
    red, _, blue = np.moveaxis(pixels, -1, 0)
    assert (blue > red + 50).mean() > 0.1
    assert (red > blue + 50).mean() < 0.01


@pytest.mark.parametrize("blocks", [[1], [-1], []])
def test_no_such_block_is_an_error(tmp_path, blocks):
    model = ConvMixer(4, 1, 3, 4, input_shape=(16, 16, 3))
    with pytest.raises(ValueError, match="`blocks` must list numbers from 0"):
        save_depthwise_filters(tmp_path / "x.png", model, blocks)


def test_wrong_numbers_are_an_error(tmp_path):
    for name in ("columns", "rows"):
        with pytest.raises(ValueError, match=f"`{name}` must be a positive"):
            save_depthwise_filters(tmp_path / "x.png", None, **{name: 0})
    with pytest.raises(ValueError, match="`columns` must be a positive"):
        save_patch_filters(tmp_path / "x.png", None, columns=0)
