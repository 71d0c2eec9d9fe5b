"""Tests the analysis functions on Keras' other backends."""

import importlib.util

import pytest

from tests.helpers import run_python

SCRIPT = """
import sys, numpy as np, keras
from keras import ops
from convmixer_tf import ConvMixer, analysis
from convmixer_tf.analysis import filters
from tests.helpers import asymmetric_image, randomize, relative_difference

assert keras.backend.backend() == sys.argv[1]
images = asymmetric_image(31, 22).astype("float32")
model = randomize(
    ConvMixer(
        6, 3, 4, 4, input_shape=(31, 22, 3), classes=5,
        classifier_activation=None,
    )
)
logits = ops.convert_to_numpy(model(images, training=False))
scores = analysis.dense_classifier(model)(images, training=False)
mean = ops.convert_to_numpy(ops.mean(scores, (1, 2)))
assert relative_difference(mean, logits) < 1e-5
found = analysis.class_activation_map(model, images, 3)
bias = ops.convert_to_numpy(model.layers[-1].bias)[3]
assert relative_difference(found.maps.mean((1, 2)), logits[:, 3] - bias) < 1e-5
maps = analysis.feature_extractor(model, [-1])(images, training=False)
head = model.get_layer("predictions")(ops.mean(maps["block_2"], (1, 2)))
assert relative_difference(ops.convert_to_numpy(head), logits) < 1e-5
assert analysis.receptive_fields(model)["block_2"] == 40
filters.save_patch_filters(sys.argv[2] + "/patch.png", model)
filters.save_depthwise_filters(sys.argv[2] + "/depthwise.png", model)
"""


@pytest.mark.peer
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_backends(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    run_python(SCRIPT, backend, tmp_path, KERAS_BACKEND=backend)
    assert len(list(tmp_path.glob("*.png"))) == 2
