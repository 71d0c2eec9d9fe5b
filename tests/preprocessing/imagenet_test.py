import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from convmixer_tf.preprocessing import IMAGENET_MEAN
from convmixer_tf.preprocessing import IMAGENET_STD
from convmixer_tf.preprocessing import normalize
from convmixer_tf.preprocessing import preprocess_input
from convmixer_tf.preprocessing.imagenet import imagenet_classes


def test_classes():
    classes = imagenet_classes()
    assert len(classes) == len({wnid for wnid, _ in classes}) == 1000
    assert classes[0] == ("n01440764", "tench")
    assert classes[386] == ("n02504458", "African_elephant")
    assert classes[999] == ("n15075141", "toilet_tissue")
    assert [wnid for wnid, _ in classes] == sorted(c.wnid for c in classes)


def test_preprocess_input_changes_nothing():
    x = np.arange(12).reshape(1, 2, 2, 3)
    assert preprocess_input(x) is x


def test_normalize_does_not_invent_channels():
    x = np.zeros((2, 3, 4, 1))
    assert normalize(x, 0.5, [0.2]).shape == x.shape
    for wrong in ({}, {"mean": 0.5}, {"std": 0.5}):
        with pytest.raises(ValueError, match="each of the 1 channels of `x`"):
            normalize(x, **wrong)
    first = x.transpose(0, 3, 1, 2)
    with pytest.raises(
        ValueError, match=r"has shape \(2, 1, 3, 4\) \(channels_f"
    ):
        normalize(first, data_format="channels_first")
    open_shape = tf.function(normalize, [tf.TensorSpec([None, 4, 4, None])])
    assert open_shape(np.zeros((1, 4, 4, 3), "float32")).shape == (1, 4, 4, 3)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_normalize(data_format):
    x = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3))
    expected = (x / 255 - IMAGENET_MEAN) / IMAGENET_STD
    if data_format == "channels_first":
        x, expected = (np.moveaxis(a, -1, 1) for a in (x, expected))
    for array in (x, x.astype("uint8"), ops.convert_to_tensor(x)):
        actual = normalize(array, data_format=data_format)
        assert keras.backend.standardize_dtype(actual.dtype) == "float32"
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
