"""The settings of the presets of `train_cifar10.py`, without TensorFlow."""

import json
import pathlib
import types

FILE = pathlib.Path(__file__).parent / "presets.json"
NAMES = ("25", "100", "200")

# What these settings must be, as nothing else is written here.
_CONFIG = {
    "accumulation_steps": 1,
    "schedule": "piecewise",
    "layer_decay": 1.0,
    "sync_batch_norm": False,
    "ema_decay": None,
    "jit_compile": False,
}
_RECIPE = {"repeats": 1, "keras_cv": None}


def read_preset(name):
    """Reads the settings of a preset.

    Args:
        name: One of `NAMES`.

    Returns:
        Namespace of `kernel_size`, `patch_size`, `config` (a namespace of the
        fields of `convmixer_tf.training.TrainConfig`) and `recipe` (likewise,
        of `convmixer_tf.data.Recipe`).
    """
    presets = json.loads(
        FILE.read_text(encoding="utf-8"),
        object_hook=lambda values: types.SimpleNamespace(**values),
    )
    preset = getattr(presets, name)
    check_supported(preset.config, preset.recipe)
    return preset


def check_supported(config, recipe):
    """Checks that settings ask for nothing that is not written here.

    Args:
        config: Namespace of the fields of a `TrainConfig`.
        recipe: A `convmixer_tf.data.Recipe`, or a namespace of its fields.

    Raises:
        ValueError: If they do.
    """
    for settings, expected in ((config, _CONFIG), (recipe, _RECIPE)):
        for name, value in expected.items():
            if getattr(settings, name) != value:
                raise ValueError(
                    f"Setting `{name}` must be {value!r} with JAX. "
                    f"Received: {name}={getattr(settings, name)!r}"
                )
    if not hasattr(recipe.crop, "min_area"):
        raise ValueError(
            "Setting `crop` must be a RandomResizedCrop with JAX. "
            f"Received: crop={recipe.crop!r}"
        )
    if recipe.mixing and recipe.mixing.mode != "batch":
        raise ValueError(
            "Setting `mode` of the mixing must be 'batch' with JAX. "
            f"Received: mode={recipe.mixing.mode!r}"
        )
