"""Compares with keras-cv's ConvMixer in a process with Keras 2."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from convmixer_tf.models import ConvMixer512_16
from convmixer_tf.weights import read_weights
from tests.helpers import relative_difference
from tests.weights import keras2_files_test as fixtures
from tests.weights.samples import assert_same

pytestmark = pytest.mark.peer


def run_keras_cv(folder, *numbers):
    """Makes keras-cv write a model and its outputs."""
    for package in ("keras_cv", "tf_keras"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'needs {package}: pip install -e ".[keras-cv]"')
    script = pathlib.Path(__file__).with_name("keras_cv_model.py")
    result = subprocess.run(
        [sys.executable, script, folder, *map(str, numbers)],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    with np.load(folder / "outputs.npz") as outputs:
        return dict(outputs)


def test_the_published_architecture(tmp_path):
    # 15 x 21 patches.
    expected = run_keras_cv(tmp_path, 512, 16, 8, 7, 1000, 110, 149)
    images = expected["images"]
    common = {"input_shape": (None, None, 3)}
    model = ConvMixer512_16(
        weights=tmp_path / "top.h5", classifier_activation=None, **common
    )
    logits = model.predict(images, verbose=0)
    assert relative_difference(logits, expected["logits"]) < 1e-4
    for wrong in (images[:, ::-1], images[:, :, ::-1], images / 2):
        logits = model.predict(wrong, verbose=0)
        assert relative_difference(logits, expected["logits"]) > 1e-3

    body = ConvMixer512_16(
        weights=tmp_path / "no_top.h5", include_top=False, **common
    )
    features = body.predict(images, verbose=0)
    assert relative_difference(features, expected["features"]) < 1e-4
    corner, theirs = features[:, :4, :4], expected["features"][:, :4, :4]
    assert relative_difference(corner, theirs) < 1e-4


def test_the_fixtures_are_what_it_writes(tmp_path):
    actual = run_keras_cv(tmp_path, 4, 2, 8, 7, 5, 52, 38)
    with np.load(fixtures.FIXTURES / "outputs.npz") as expected:
        assert set(actual) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(
                actual[name], value, rtol=1e-4, atol=1e-5
            )
    (tmp_path / "fixtures").mkdir()
    for name in ("top", "no_top"):
        fixture = fixtures.unpack(name, tmp_path / "fixtures")
        assert_same(
            read_weights(tmp_path / f"{name}.h5"), read_weights(fixture)
        )
