"""Tests the documents' examples with `compile` and `fit`."""

import keras
import numpy as np
import pytest
from PIL import Image

from tests.prose import documents

EXAMPLES = [
    block.text
    for name in ("README.md", "recipes/README.md")
    for block in documents.blocks(name)
    if "image_dataset_from_directory" in block.text
]


# Keras warns about any `tf.data.Dataset` because `shuffle` defaults to true.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
@pytest.mark.parametrize("example", EXAMPLES, ids=("short", "long"))
def test_the_example_learns_and_leaves_a_model(tmp_path, monkeypatch, example):
    rng = np.random.default_rng(0)
    for label, name in enumerate(("blue", "green", "red")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(0, 120, (40, 48, 3), np.uint8)
            pixels[..., 2 - label] += 120
            path = tmp_path / "photos" / name / f"{i}.png"
            Image.fromarray(pixels).save(path)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(example, found)
    model = keras.saving.load_model("mine.keras")
    _, accuracy = model.evaluate(found["validation"], verbose=0)
    assert accuracy == 1
    norms = found["body"].get_layer("block_0").pointwise_norm
    source = found["ConvMixer256_8"](weights="cifar10")
    before = source.get_layer("block_0").pointwise_norm
    np.testing.assert_array_equal(norms.moving_mean, before.moving_mean)
