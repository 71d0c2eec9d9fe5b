"""Tests an installation without TensorFlow, with JAX or PyTorch."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from convmixer_tf import open_model
from tests.helpers import ROOT
from tests.helpers import asymmetric_image

CODE = """
import importlib.util
import json
import sys

import keras
import numpy as np

import convmixer_tf
from convmixer_tf.weights import save_timm_weights

assert importlib.util.find_spec("tensorflow") is None
opened = convmixer_tf.open_model("256_8")
images = np.float32(json.load(sys.stdin))
outputs = opened.model.predict(images, verbose=0)
save_timm_weights(opened.model, "weights.safetensors")
again = convmixer_tf.ConvMixer256_8(weights="weights.safetensors")
assert np.array_equal(again.predict(images, verbose=0), outputs)
assert opened.class_names[0] == "airplane"
try:
    convmixer_tf.predict_images
except ImportError as error:
    assert "pip install tensorflow" in str(error)
else:
    raise AssertionError("It has read no image.")
print(json.dumps([keras.backend.backend(), outputs.tolist()]))
"""


@pytest.mark.large
def test_predicts_with_jax_alone(tmp_path):
    """Installs from the package index, as in the README."""
    python = tmp_path / "venv" / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", tmp_path / "venv"],
        *(
            [python, "-m", "pip", "install", "--quiet", *packages]
            for packages in (
                ["jax", "keras", "huggingface_hub", "safetensors"],
                ["--no-deps", ROOT],
            )
        ),
    ):
        subprocess.run(command, check=True)
    images = asymmetric_image(32, 32)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    result = subprocess.run(
        [python, "-c", CODE],
        input=json.dumps(images.tolist()),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environment, "KERAS_BACKEND": "jax"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    backend, outputs = json.loads(result.stdout.splitlines()[-1])
    assert backend == "jax"
    expected = open_model("256_8").model.predict(images, verbose=0)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
