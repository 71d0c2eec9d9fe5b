"""Class activation maps: their means are the logits, in every format."""

import keras
import numpy as np
import pytest

from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import deploy
from convmixer_tf.export import export_tflite
from convmixer_tf.export import read_metadata
from convmixer_tf.export.activation_maps import MAPS
from convmixer_tf.export.activation_maps import add_activation_maps
from convmixer_tf.export.tflite_model import describe_tflite
from convmixer_tf.models import ConvMixer
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import relative_difference

IMAGES = asymmetric_image(36, 28, batch=20)
NAMES = ("ant", "bee", "cat", "dog", "elk")


def convmixer(**arguments):
    arguments = {"input_shape": (36, 28, 3), "classes": 5, **arguments}
    return randomize(ConvMixer(16, 2, 3, 4, **arguments))


@pytest.fixture(scope="module")
def model():
    return convmixer()


@pytest.fixture(scope="module")
def expected(model):
    """The features times the classifier's kernel, plus its bias."""
    pool = model.get_layer("avg_pool")
    features = keras.Model(model.input, pool.input)(IMAGES)
    kernel, bias = model.get_layer("predictions").get_weights()
    return np.asarray(features) @ kernel + bias


@pytest.mark.parametrize("target", ["float", "litert", "litert_int8"])
def test_maps_of_the_deployed_model(model, expected, target):
    outputs = add_activation_maps(deploy(model, target))(IMAGES)
    assert outputs[MAPS].shape == (20, 9, 7, 5)
    assert relative_difference(outputs[MAPS], expected) < 1e-5
    predictions = model(IMAGES)
    assert relative_difference(outputs["predictions"], predictions) < 1e-5


@pytest.mark.parametrize(
    ("quantization", "bound"),
    [
        ("float32", 1e-5),
        ("dynamic", 0.03),
        ("int8", 0.1),
        pytest.param("int4", 0.5, marks=pytest.mark.large),
        pytest.param("float16", 3e-3, marks=pytest.mark.large),
    ],
)
def test_maps_in_a_file(model, expected, tmp_path, quantization, bound):
    path = tmp_path / "model.tflite"
    export_tflite(
        model,
        path,
        quantization=quantization,
        calibration_images=IMAGES if quantization == "int8" else None,
        class_names=NAMES,
        class_activation_maps=True,
    )
    maps = LiteRTModel(path, output=MAPS).predict(IMAGES)
    predictions = LiteRTModel(path).predict(IMAGES)
    assert relative_difference(maps, expected) < bound
    # Whatever rounding did to the maps, the predictions are made of them.
    logits = maps.mean(axis=(1, 2), dtype="float64")
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(predictions, softmax, atol=1e-5)
    outputs = describe_tflite(path)["outputs"]
    shapes = {output["name"]: output["shape"] for output in outputs}
    assert shapes == {"predictions": [1, 5], MAPS: [1, 9, 7, 5]}
    assert read_metadata(path).class_names == NAMES


def test_other_models_are_refused(model, tmp_path):
    body = convmixer(include_top=False, pooling="avg")
    with pytest.raises(ValueError, match="are of a classifier after average"):
        add_activation_maps(deploy(body))
    path = tmp_path / "model.tflite"
    for arguments in (
        {"plain": True},
        {"quantization": "int8", "output_dtype": "uint8"},
    ):
        with pytest.raises(ValueError, match="maps` needs the deployed model"):
            export_tflite(model, path, class_activation_maps=True, **arguments)
    export_tflite(model, path, class_activation_maps=True)
    with pytest.raises(ValueError, match="one of the name `logits`"):
        LiteRTModel(path, output="logits")
