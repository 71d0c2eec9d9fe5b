"""Tests the inspection of a model's layers."""

import keras
import numpy as np
import pytest

from convmixer_tf.models import ConvMixer
from convmixer_tf.models.structure import _INACTIVE
from convmixer_tf.models.structure import check_pixels
from tests.helpers import asymmetric_image

IMAGES = asymmetric_image(24, 20, batch=12).astype("float32")

INACTIVE_ARGUMENTS = {
    "ActivityRegularization": {},
    "Identity": {},
    "RandAugment": {},
    "AugMix": {},
    "CutMix": {},
    "MixUp": {},
    "RandomFlip": {},
    "RandomErasing": {},
    "RandomGrayscale": {},
    "RandomInvert": {},
    "RandomPerspective": {},
    "RandomPosterization": {"factor": 4},
    "RandomElasticTransform": {},
    "RandomShear": {"x_factor": 0.5},
    "RandomTranslation": {"height_factor": 0.5, "width_factor": 0.5},
    "RandomColorJitter": {"brightness_factor": 0.5},
}


@pytest.mark.parametrize("cls", sorted(_INACTIVE, key=lambda x: x.__name__))
def test_layers_that_are_inactive_in_inference(cls):
    arguments = INACTIVE_ARGUMENTS.get(cls.__name__)
    layer = cls(0.5) if arguments is None else cls(**arguments)
    outputs = layer(IMAGES, training=False)
    assert np.array_equal(outputs, IMAGES)


@pytest.mark.parametrize("wrap", [False, True])
def test_a_convmixer_without_preprocessing_takes_no_pixels(wrap):
    def build(**arguments):
        model = ConvMixer(
            4, 1, 3, 4, input_shape=(8, 8, 3), classes=2, **arguments
        )
        flip = keras.layers.RandomFlip()
        return keras.Sequential([model.input, flip, model]) if wrap else model

    check_pixels(build())
    with pytest.raises(ValueError, match="include_preprocessing=True"):
        check_pixels(build(include_preprocessing=False))
    check_pixels(keras.Sequential([keras.Input((8, 8, 3))]))
