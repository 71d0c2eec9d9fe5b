"""A small ConvMixer with random weights and statistics."""

import keras
import numpy as np
import pytest

from convmixer_tf import ConvMixer
from tests.helpers import asymmetric_image
from tests.helpers import randomize


@pytest.fixture
def build():
    """Builds a ConvMixer that gives logits, and images for it.

    It computes in double precision, so that exact equalities can be tested.
    """

    def build(data_format="channels_last", dtype="float64", **kwargs):
        keras.config.set_dtype_policy(dtype)
        keras.config.set_image_data_format(data_format)
        images = asymmetric_image(31, 22).astype("float32")
        shape = (31, 22, 3)
        if data_format == "channels_first":
            images, shape = images.transpose(0, 3, 1, 2), (3, 31, 22)
        kwargs = {"classes": 5, "classifier_activation": None, **kwargs}
        model = ConvMixer(6, 3, 4, 4, input_shape=shape, **kwargs)
        return randomize(model), images

    return build


@pytest.fixture
def read_png():
    """Reads a PNG and checks that it is not empty."""
    from PIL import Image

    def read(path):
        picture = Image.open(path)
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
        return pixels

    return read
