import numpy as np
import pytest
from keras import ops

from convmixer_tf.preprocessing import CIFAR10_CLASSES
from convmixer_tf.preprocessing import decode_predictions
from convmixer_tf.preprocessing.decoding import class_names


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


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float16", "bool"])
def test_decode_predictions_takes_every_type(dtype):
    preds = np.array([[0, 1, 0]]).astype(dtype)
    if dtype.endswith("int8"):
        preds = np.array([[0, np.iinfo(dtype).max, np.iinfo(dtype).min]], dtype)
    (found,) = decode_predictions(preds, 2, ["a", "b", "c"])
    assert found == [("b", preds[0, 1]), ("a", preds[0, 0])]


@pytest.mark.parametrize("shape", [(1000,), (1, 999), (1, 1, 1000)])
def test_decode_predictions_rejects_other_shapes(shape):
    with pytest.raises(
        ValueError, match=r"1000 ImageNet classes, of shape \(batch, 1000\)\."
    ):
        decode_predictions(np.zeros(shape))


@pytest.mark.parametrize("top", [0, 1001, 2.5])
def test_decode_predictions_rejects_a_bad_top(top):
    with pytest.raises(
        ValueError, match="`top` must be an integer from 1 to 1000"
    ):
        decode_predictions(np.zeros((1, 1000)), top=top)


def test_decode_predictions_takes_names():
    preds = np.zeros((2, 10))
    preds[0, [3, 5]] = [0.7, 0.3]
    preds[1, 9] = 1
    first, second = decode_predictions(preds, 2, CIFAR10_CLASSES)
    assert first == [("cat", 0.7), ("dog", 0.3)]
    assert second[0] == ("truck", 1)
    with pytest.raises(ValueError, match=r"for the 2 classes, .*\(batch, 2\)"):
        decode_predictions(preds, class_names=["cat", "dog"])
    with pytest.raises(ValueError, match="`top` must be an integer from 1 to"):
        decode_predictions(preds, 11, CIFAR10_CLASSES)


def test_top_may_be_an_integer_of_numpys():
    (found,) = decode_predictions(np.eye(2)[:1], np.int64(1), ["a", "b"])
    assert found == [("a", 1)]


def test_class_names():
    assert class_names("imagenet")[:2] == ("tench", "goldfish")
    assert len(class_names("imagenet")) == 1000
    assert class_names("cifar10") == CIFAR10_CLASSES
    assert list(CIFAR10_CLASSES) == sorted(CIFAR10_CLASSES)
    with pytest.raises(ValueError, match='must be "imagenet" or "cifar10"'):
        class_names("mnist")
