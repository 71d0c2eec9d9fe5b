"""Tests the conversion of outputs to probabilities."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops
from scipy import special

from convmixer_tf.models.probabilities import activation_of_keras
from convmixer_tf.models.probabilities import graph_probabilities
from convmixer_tf.models.probabilities import probabilities
from convmixer_tf.models.probabilities import resolve_activation

LOGITS = np.array([[0.2, 0.3, 0.5], [-900.0, 0.0, 900.0], [5.0, 5.0, 5.0]])


def test_logits_and_probabilities():
    np.testing.assert_allclose(
        probabilities(LOGITS, "linear"), special.softmax(LOGITS, -1)
    )
    for activation in ("softmax", "sigmoid"):
        shares = special.expit(LOGITS)
        np.testing.assert_array_equal(probabilities(shares, activation), shares)


def test_one_output_is_two_classes():
    logits = np.array([[-800.0], [-40.0], [0.0], [1.0], [800.0]])
    chance = special.expit(logits)
    opposite = special.expit(-logits)
    expected = np.concatenate([opposite, chance], -1)
    actual = probabilities(logits, "linear")
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-15)
    actual = probabilities(chance, "sigmoid")
    np.testing.assert_allclose(actual, expected, atol=1e-15)


@pytest.mark.parametrize("activation", ["softmax", "unknown"])
def test_one_output_that_says_nothing(activation):
    outputs = np.ones((2, 1))
    with pytest.raises(ValueError, match="one output"):
        probabilities(outputs, activation)
    with pytest.raises(ValueError, match="one output"):
        resolve_activation(activation, outputs)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("activation", ["linear", "sigmoid"])
def test_graphs_compute_the_same(activation, outputs):
    values = np.float32([[0.2, 0.3, 0.6], [0.0, 1.0, 0.5]])[:, :outputs]
    expected = probabilities(values, activation)
    actual = graph_probabilities(ops.convert_to_tensor(values), activation)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype):
    values = ops.convert_to_numpy(ops.cast(LOGITS / 300, dtype))
    expected = special.softmax(np.float64(values), -1)
    actual = probabilities(values, "linear")
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_what_is_not_finite_is_no_probability():
    """Without a NumPy warning, which is an error here."""
    for value in (np.nan, np.inf):
        outputs = np.array([[0.0, value], [0.0, 1.0]])
        found = probabilities(outputs, "linear")
        assert np.isnan(found[0]).any()
        np.testing.assert_allclose(found[1], special.softmax([0, 1]))
        assert np.isnan(probabilities([[np.nan]], "linear")).all()
    # Such logits exclude a class.
    outputs = np.array([[0.0, 0.0, -np.inf]])
    np.testing.assert_array_equal(
        probabilities(outputs, "linear"), [[0.5, 0.5, 0.0]]
    )


def test_probes_tell_what_is_not_known():
    shares = special.softmax(LOGITS, -1)
    assert resolve_activation("unknown", shares) == "softmax"
    assert resolve_activation("unknown", LOGITS) == "linear"
    assert resolve_activation("sigmoid", LOGITS) == "sigmoid"
    # One image's logits happen to add up to 1, and all are in [0, 1].
    outputs = np.array([[0.2, 0.3, 0.5], [0.9, 0.9, 0.9]])
    with pytest.raises(ValueError, match="Cannot determine whether"):
        resolve_activation("unknown", outputs)


def dense(activation=None):
    return layers.Dense(3, activation)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ([dense()], "linear"),
        ([dense("softmax")], "softmax"),
        ([dense("sigmoid")], "sigmoid"),
        ([dense("hard_sigmoid")], "sigmoid"),
        ([dense("sparsemax")], "softmax"),
        ([dense("log_softmax")], "linear"),
        ([dense("relu")], "unknown"),
        ([dense(lambda x: x / 2)], "unknown"),
        ([dense(), layers.Activation("softmax")], "softmax"),
        ([dense(), layers.Softmax()], "softmax"),
        ([dense(), layers.Rescaling(0.5)], "unknown"),
        ([dense(), layers.Rescaling(0.5), layers.Softmax()], "softmax"),
        # As recommended in guides to mixed precision.
        (
            [dense("softmax"), layers.Activation("linear", dtype="float32")],
            "softmax",
        ),
        ([dense("softmax"), layers.Reshape((3,))], "softmax"),
        ([dense("sigmoid"), layers.Dropout(0.5)], "sigmoid"),
        ([dense(), layers.BatchNormalization()], "unknown"),
        ([layers.Dropout(0.5)], None),
        ([layers.Lambda(lambda x: ops.softmax(x))], "unknown"),
        ([lambda x: ops.softmax(dense()(x) / 2)], "softmax"),
        ([lambda x: ops.sigmoid(dense()(x))], "sigmoid"),
        ([lambda x: dense()(x) / 2], "unknown"),
        ([keras.Sequential([dense("softmax")])], "softmax"),
        ([dense("softmax"), keras.Sequential([layers.Flatten()])], "softmax"),
    ],
)
def test_how_keras_models_end(head, expected):
    image = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(image)
    for layer in head:
        x = layer(x)
    assert activation_of_keras(keras.Model(image, x)) == expected
