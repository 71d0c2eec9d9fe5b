"""Tests opening weights files with the settings of published variants."""

import gzip
import pathlib

import numpy as np
import pytest
from scipy import special

from convmixer_tf.models import ConvMixer
from convmixer_tf.models import open_model
from convmixer_tf.models.normalization import statistics_in
from convmixer_tf.preprocessing import CIFAR10_MEAN
from convmixer_tf.preprocessing import CIFAR10_STD
from convmixer_tf.preprocessing import IMAGENET_MEAN
from convmixer_tf.preprocessing import IMAGENET_STD
from convmixer_tf.weights import PUBLISHED_WEIGHTS
from convmixer_tf.weights import save_timm_weights
from convmixer_tf.weights.published import PublishedWeights
from tests.helpers import relative_difference

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures" / "keras_cv"


@pytest.mark.parametrize(
    ("architecture", "mean", "std"),
    [
        ((256, 8, 5, 2), CIFAR10_MEAN, CIFAR10_STD),
        ((6, 2, 3, 4), IMAGENET_MEAN, IMAGENET_STD),
    ],
)
def test_weights_are_opened_with_their_pixel_statistics(
    tmp_path, architecture, mean, std
):
    model = ConvMixer(*architecture, classes=10, input_shape=(32, 32, 3))
    path = tmp_path / "model.safetensors"
    save_timm_weights(model, path)
    opened = open_model(path, 32, activation="gelu")
    layer = opened.model.get_layer("normalization")
    np.testing.assert_allclose(statistics_in(layer.get_config()), [mean, std])


def test_a_file_of_keras_cv_is_opened_as_it_was_trained(tmp_path, monkeypatch):
    path = tmp_path / "top.h5"
    path.write_bytes(gzip.decompress((FIXTURES / "top.h5.gz").read_bytes()))
    with pytest.raises(ValueError, match="has no activation of its"):
        open_model(path)
    entry = PublishedWeights(
        "imagenet",
        None,
        *(4, 2, 8, 7, "gelu", None, None),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    monkeypatch.setitem(PUBLISHED_WEIGHTS, "convmixer_small", entry)
    opened = open_model(path, any_size=True)
    with np.load(FIXTURES / "outputs.npz") as outputs:
        expected = special.softmax(outputs["logits"], -1)
        actual = opened.model.predict(outputs["images"], verbose=0)
    assert relative_difference(actual, expected) < 1e-5
