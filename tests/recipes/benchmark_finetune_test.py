"""Tests the fine-tuning methods of the benchmark on a few images."""

import keras
import numpy as np
import pytest

from convmixer_tf import ConvMixer
from convmixer_tf.models.open_model import OpenedModel
from tests.helpers import randomize
from tests.helpers import write_images

CLASSES = ("blue", "green", "red")


@pytest.fixture
def recipe(load_recipe):
    return load_recipe("benchmark_finetune")


@pytest.mark.slow
def test_all_ways_learn_what_is_easy(recipe, tmp_path):
    write_images(tmp_path / "train", CLASSES, 10, 16)
    write_images(tmp_path / "test", CLASSES, 4, 16)
    model = ConvMixer(8, 1, 3, 4, input_shape=(16, 16, 3), classes=3)
    opened = OpenedModel(randomize(model), CLASSES, 1.0, "exif")
    data = recipe.read(tmp_path, opened)
    assert data.train[0].shape == (30, 16, 16, 3)
    answers = model.predict(data.test[0], verbose=0).argmax(-1)
    expected = np.mean(answers == np.repeat(range(3), 4))
    assert recipe.untouched(opened, data) == {"top1": expected}
    other = OpenedModel(model, ("x", "y", "z"), 1.0, "exif")
    assert recipe.untouched(other, data) is None
    assert recipe.probe(opened, data) == {"top1": 1}
    assert recipe.frozen(opened, data, 0) == {"top1": 1}
    before = [x.copy() for x in model.get_weights()]
    result = recipe.full(opened, data, 0)
    assert result["top1"] == result["int8_top1"] == 1
    assert 0 <= recipe.stock_keras(opened, data, 0)["top1"] <= 1
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_digits_are_colored(recipe, tmp_path):
    recipe.write_digits(tmp_path, 0)
    train, test = (
        sorted((tmp_path / split).rglob("*.png")) for split in ("train", "test")
    )
    assert (len(train), len(test)) == (500, 360)
    image = keras.utils.img_to_array(keras.utils.load_img(train[0]))
    assert image.shape == (32, 32, 3)
    assert np.ptp(image.mean((0, 1))) > 1
