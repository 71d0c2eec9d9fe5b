"""Compares the receptive field with the values that pixels change."""

import numpy as np
import pytest

from convmixer_tf import ConvMixer
from convmixer_tf.analysis import feature_extractor
from convmixer_tf.analysis import receptive_fields
from convmixer_tf.analysis.receptive_field import reaches
from convmixer_tf.analysis.receptive_field import save_receptive_fields
from tests.helpers import randomize


@pytest.mark.parametrize(("kernel", "patch"), [(3, 2), (4, 3)])
def test_a_pixel_is_seen_as_far_as_it_says(kernel, patch):
    grid = 15
    side = grid * patch
    model = ConvMixer(
        *(4, 3, kernel, patch), "linear", input_shape=(side, side, 3)
    )
    extractor = feature_extractor(
        randomize(model), ["patch_embed", "block_0", "block_1", "block_2"]
    )
    image = np.zeros((1, side, side, 3), np.float32)
    dotted = image.copy()
    dotted[0, side // 2, side // 2] = 255
    before, after = extractor(image), extractor(dotted)
    fields = receptive_fields(model)
    assert list(fields) == list(before)
    for name, field in fields.items():
        change = np.abs(np.array(after[name] - before[name])).max((0, 3))
        seen = np.flatnonzero((change > 1e-7).any(0))
        assert (seen.max() - seen.min() + 1) * patch == field
        # Patches that see the middle one are as far before it as they reach
        # ahead.
        back, ahead = reaches(model)[name]
        assert (grid // 2 - seen.min(), seen.max() - grid // 2) == (ahead, back)


def test_picture_of_even_kernels(tmp_path, monkeypatch):
    from matplotlib import patches

    drawn = []

    class Rectangle(patches.Rectangle):
        def __init__(self, corner, width, height, **kwargs):
            if "label" in kwargs:  # The legend has other patches.
                drawn.append((corner, width, height))
            super().__init__(corner, width, height, **kwargs)

    monkeypatch.setattr(patches, "Rectangle", Rectangle)
    model = ConvMixer(4, 2, 8, 7, input_shape=(35, 35, 3))
    save_receptive_fields(tmp_path / "fields.png", model, np.zeros((35, 35, 3)))
    # A central patch of 7 pixels; each block adds 3 patches back and 4 ahead.
    assert drawn == [
        ((-3.5, -3.5), 7, 7),
        ((-24.5, -24.5), 56, 56),
        ((-45.5, -45.5), 105, 105),
    ]


def test_picture(tmp_path, read_png):
    model = ConvMixer(4, 20, 3, 2, input_shape=(32, 32, 3))
    path = tmp_path / "fields.png"
    save_receptive_fields(path, model, np.zeros((32, 32, 3)))
    pixels = read_png(path)
    # It is larger than the image, which is inside of the last square.
    assert (pixels.sum(-1) == 0).mean() < 0.1
    with pytest.raises(FileExistsError, match="pass `--overwrite`"):
        save_receptive_fields(path, model, np.zeros((32, 32, 3)))
