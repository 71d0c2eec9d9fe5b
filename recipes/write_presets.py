"""Writes the presets of `train_cifar10.py` where no TensorFlow is needed.

    python recipes/write_presets.py

`train_cifar10_jax.py` reads them from `recipes/jax_cifar10/presets.json`. A
test holds the file to what stands in `train_cifar10.py`.
"""

import dataclasses

import launch
import train_cifar10
from jax_cifar10.presets import FILE

from convmixer_tf.files import dump_json
from convmixer_tf.training import TrainConfig
from convmixer_tf.training.config import NOT_PART_OF_THE_RESULT


def collect():
    """Collects all settings of all presets.

    Returns:
        Dictionary, ready for JSON.
    """
    return {
        name: {
            "kernel_size": preset.kernel_size,
            "patch_size": preset.patch_size,
            "config": _config(preset),
            "recipe": dataclasses.asdict(preset.recipe),
        }
        for name, preset in train_cifar10.PRESETS.items()
    }


def _config(preset):
    """The `TrainConfig` of a preset, but for what its data decide."""
    config = TrainConfig(
        epochs=preset.epochs, batch_size=preset.batch_size, **preset.settings
    )
    others = ("steps_per_epoch", *NOT_PART_OF_THE_RESULT)
    values = dataclasses.asdict(config)
    return {name: values[name] for name in values if name not in others}


def main(argv):
    """Writes the file."""
    del argv  # Unused.
    dump_json(FILE, collect())


if __name__ == "__main__":
    launch.run(main)
