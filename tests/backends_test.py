"""Tests that TensorFlow, JAX and PyTorch give the same results."""

import importlib.util

import keras
import numpy as np
import pytest

from convmixer_tf.models import ConvMixer
from tests.helpers import ROOT
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import relative_difference
from tests.helpers import run_python

TOLERANCE = 1e-4


def forward_and_step():
    """Computes logits, and weights after a training step, for each layout."""
    results = {}
    # In float32: TensorFlow on a CPU has no other channels_first convolutions.
    for data_format in ("channels_last", "channels_first"):
        keras.config.set_image_data_format(data_format)
        images = asymmetric_image().astype("float32")
        shape = (45, 31, 3)
        if data_format == "channels_first":
            images, shape = images.transpose(0, 3, 1, 2), (3, 45, 31)
        for remat in (False, True):
            model = randomize(
                ConvMixer(
                    *(8, 2, 4, 4),
                    input_shape=shape,
                    classes=5,
                    remat=remat,
                    classifier_activation=None,
                )
            )
            key = f"{data_format}_{remat}"
            results[key + "_logits"] = model.predict(images, verbose=0)
            model.compile(keras.optimizers.SGD(0.1), "mse")
            model.train_on_batch(images, np.ones((2, 5)))
            for i, weight in enumerate(model.get_weights()):
                results[f"{key}_{i}"] = weight
    keras.config.set_image_data_format("channels_last")
    return results


IN_ANOTHER = """
import sys, keras, numpy as np
from tests.backends_test import forward_and_step
assert keras.backend.backend() == sys.argv[1]
np.savez(sys.argv[2], **forward_and_step())
"""


@pytest.fixture(scope="module")
def expected():
    return forward_and_step()


def check_layouts_and_remat(arrays):
    reference = [key for key in arrays if key.startswith("channels_last_False")]
    assert len(reference) > 20
    for key in reference:
        for variant in ("last_True", "first_False", "first_True"):
            other = arrays[key.replace("last_False", variant)]
            assert relative_difference(other, arrays[key]) < TOLERANCE, key


def test_layouts_and_remat_compute_the_same(expected):
    check_layouts_and_remat(expected)


@pytest.mark.peer
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_backends_compute_the_same(expected, tmp_path, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    path = tmp_path / "results.npz"
    environment = {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    run_python(IN_ANOTHER, backend, path, **environment)
    arrays = dict(np.load(path))
    check_layouts_and_remat(arrays)
    for key in arrays:
        assert relative_difference(arrays[key], expected[key]) < TOLERANCE, key


WITHOUT_TENSORFLOW = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import keras, numpy as np
import convmixer_tf
from convmixer_tf.layers import ConvMixerBlock, PatchEmbed

model = convmixer_tf.ConvMixer(
    8, 2, 4, 4, input_shape=(32, 32, 3), classes=5, classifier_activation=None
)
images, targets = np.ones((2, 32, 32, 3)), np.ones((2, 5))
before = model.predict(images, verbose=0)
model.compile(keras.optimizers.AdamW(0.01), "mse")
model.fit(images, targets, verbose=0)
assert not np.allclose(model.predict(images, verbose=0), before)
path = sys.argv[2] + "/model.keras"
model.save(path)
assert keras.saving.load_model(path).count_params() == model.count_params()
assert not set(sys.argv[1].split(",")) & set(sys.modules)
"""


@pytest.mark.peer
def test_the_models_import_without_tensorflow(tmp_path):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    # Packages that may be missing on a machine for JAX.
    missing = "tensorflow,huggingface_hub,safetensors,tensorflow_datasets"
    run_python(WITHOUT_TENSORFLOW, missing, tmp_path, KERAS_BACKEND="jax")
