import keras
import numpy as np
import pytest
from keras import ops

from convmixer_tf.preprocessing import IMAGENET_MEAN
from convmixer_tf.preprocessing import IMAGENET_STD
from convmixer_tf.preprocessing import decode_predictions
from convmixer_tf.preprocessing import imagenet_classes
from convmixer_tf.preprocessing import normalize
from convmixer_tf.preprocessing import preprocess_input


def test_classes():
    classes = imagenet_classes()
    assert len(classes) == len({wnid for wnid, _ in classes}) == 1000
    assert classes[0] == ("n01440764", "tench")
    assert classes[386] == ("n02504458", "African_elephant")
    assert classes[999] == ("n15075141", "toilet_tissue")
    assert [wnid for wnid, _ in classes] == sorted(c.wnid for c in classes)


def test_decode_predictions_names_the_best_first():
    preds = np.zeros((2, 1000), "float32")
    preds[0, [5, 386, 7]] = [0.2, 0.5, 0.3]
    preds[1, 0] = 1
    first, second = decode_predictions(preds, top=3)
    assert [name for _, name, _ in first] == [
        "African_elephant",
        "cock",
        "electric_ray",
    ]
    assert first[0][0] == "n02504458"
    assert [score for *_, score in first] == pytest.approx([0.5, 0.3, 0.2])
    assert second[0][:2] == ("n01440764", "tench")
    assert [len(d) for d in decode_predictions(preds)] == [5, 5]


def test_decode_predictions_takes_tensors():
    preds = ops.one_hot([3], 1000)
    assert decode_predictions(preds, top=1)[0][0][1] == "tiger_shark"


@pytest.mark.parametrize("shape", [(1000,), (1, 999), (1, 1, 1000)])
def test_decode_predictions_rejects_other_shapes(shape):
    with pytest.raises(ValueError, match=r"of shape \(batch, 1000\). Received"):
        decode_predictions(np.zeros(shape))


@pytest.mark.parametrize("top", [0, 1001, 2.5])
def test_decode_predictions_rejects_a_bad_top(top):
    with pytest.raises(ValueError, match="`top` must be an integer from 1 to"):
        decode_predictions(np.zeros((1, 1000)), top=top)


def test_preprocess_input_changes_nothing():
    x = np.arange(12).reshape(1, 2, 2, 3)
    assert preprocess_input(x) is x


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
