"""One source of settings, of which the JAX recipe reads a copy."""

import dataclasses
import importlib
import json
import types

import pytest

from convmixer_tf import data
from convmixer_tf.training import TrainConfig


@pytest.fixture
def presets():
    return importlib.import_module("jax_cifar10.presets")


def test_the_file_is_that_of_the_other_recipe(load_recipe, presets):
    expected = json.loads(json.dumps(load_recipe("write_presets").collect()))
    found = json.loads(presets.FILE.read_text(encoding="utf-8"))
    assert found == expected, "Run: python recipes/write_presets.py"
    assert tuple(found) == presets.NAMES


def test_presets_are_read_as_settings(presets):
    preset = presets.read_preset("200")
    assert (preset.kernel_size, preset.patch_size) == (9, 1)
    assert (preset.config.epochs, preset.config.batch_size) == (200, 64)
    assert preset.config.clip_norm == 1.0
    assert preset.recipe.crop.min_area == 0.75
    assert preset.recipe.mixing.mode == "batch"
    assert presets.read_preset("25").recipe.erasing is None


@pytest.mark.parametrize(
    ("config", "recipe", "message"),
    [
        ({"accumulation_steps": 2}, {}, "`accumulation_steps` must be 1 with"),
        ({"schedule": "cosine"}, {}, "`schedule` must be 'piecewise' with JAX"),
        ({"ema_decay": 0.9}, {}, "`ema_decay` must be None with JAX. Received"),
        ({"layer_decay": 0.7}, {}, "`layer_decay` must be 1.0 with JAX"),
        ({}, {"repeats": 3}, "`repeats` must be 1 with JAX"),
        ({}, {"crop": data.PadAndCrop()}, "`crop` must be a RandomResizedCrop"),
        ({}, {"mixing": data.Mixing(mode="elem")}, "must be 'batch' with JAX"),
    ],
)
def test_what_is_not_written_is_refused(presets, config, recipe, message):
    settings = dataclasses.asdict(TrainConfig(**config))
    with pytest.raises(ValueError, match=message):
        presets.check_supported(
            types.SimpleNamespace(**settings), data.Recipe(**recipe)
        )
