"""Tests the packaged weights: valid, damaged, missing."""

import numpy as np
import pytest

from convmixer_tf.models import ConvMixer256_8
from convmixer_tf.preprocessing import CIFAR10_CLASSES
from convmixer_tf.weights import PUBLISHED_WEIGHTS
from convmixer_tf.weights import packaged
from convmixer_tf.weights import read_facts
from convmixer_tf.weights.hub import fetch_weights
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import relative_difference
from tests.helpers import write_packaged

NAME = "convmixer_256_8"
IMAGES = asymmetric_image(32, 32)


@pytest.fixture(scope="module")
def model():
    return randomize(ConvMixer256_8(weights=None))


@pytest.fixture
def folder(model, tmp_path, monkeypatch):
    """A folder like from `recipes/package_cifar10.py`."""
    write_packaged(model, tmp_path)
    monkeypatch.setattr(packaged, "FOLDER", tmp_path)
    return tmp_path


def test_the_model_loads_them_offline(folder, model):
    loaded = ConvMixer256_8()
    assert {w.dtype for w in loaded.weights} == {"float32"}
    for actual, exact in zip(loaded.weights, model.weights, strict=True):
        rounded = exact.numpy().astype("float16").astype("float32")
        np.testing.assert_array_equal(actual.numpy(), rounded, actual.path)
    expected = model.predict(IMAGES, verbose=0)
    actual = loaded.predict(IMAGES, verbose=0)
    assert 0 < relative_difference(actual, expected) < 0.02


def test_the_body_and_other_heads_load_them(folder, model):
    kernel = model.get_layer("block_3").depthwise.kernel.numpy()
    for arguments in (
        {"include_top": False, "pooling": "avg"},
        {"classes": 3, "reset_classifier": True},
        {
            "include_top": False,
            "input_shape": (8, 8, 1),
            "adapt_channels": True,
        },
    ):
        other = ConvMixer256_8(weights="cifar10", **arguments)
        found = other.get_layer("block_3").depthwise.kernel.numpy()
        np.testing.assert_allclose(found, kernel, rtol=1e-3, atol=1e-7)


def test_a_damaged_file(folder):
    path = folder / f"{NAME}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"damaged: the SHA-256 of .*expected"):
        ConvMixer256_8()


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_a_missing_file(folder, suffix):
    (folder / f"{NAME}.{suffix}").unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"`.*{NAME}\.{suffix}` is missing. Install"
    ):
        fetch_weights(NAME)


@pytest.mark.skipif(
    not packaged.FOLDER.exists(), reason="no finished run is packaged as yet"
)
def test_the_weights_of_this_package():
    model = ConvMixer256_8()
    facts = read_facts(NAME)
    assert facts["images"] == 10_000
    assert facts["top1"] > 0.9
    assert abs(facts["top1"] - facts["top1_in_float32"]) < 0.002
    assert facts["bytes"] < 3e6
    card = (packaged.FOLDER / f"{NAME}.md").read_text(encoding="utf-8")
    assert f"{facts['top1']:.2%}" in card
    assert tuple(facts["per_class"]) == CIFAR10_CLASSES
    assert model.output_shape[-1] == PUBLISHED_WEIGHTS[NAME].classes
    assert np.isfinite(model.predict(IMAGES, verbose=0)).all()
