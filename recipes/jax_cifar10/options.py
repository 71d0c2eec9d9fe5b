"""The flags of `train_cifar10_jax.py`, and what follows of them."""

import os
import types

from absl import flags

from jax_cifar10.images import SIZE
from jax_cifar10.presets import NAMES
from jax_cifar10.presets import read_preset

DATA = flags.DEFINE_multi_string(
    "data", None, "Folder or archive; repeat it for several.", required=True
)
_PRESET = flags.DEFINE_enum("preset", "25", NAMES, "Which settings.")
OUTPUT = flags.DEFINE_string("output", "runs/cifar10_jax", "Folder of the run.")
_EPOCHS = flags.DEFINE_integer(
    "epochs", None, "Default: the preset's.", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Default: the preset's.", lower_bound=1
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate",
    None,
    "Default: the preset's, in proportion to the batch size.",
    lower_bound=1e-9,
)
_STEPS = flags.DEFINE_integer(
    "steps_per_epoch",
    None,
    "Updates per epoch. Default: all images once.",
    lower_bound=1,
)
WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "File to start from, such as another run's model.keras. Default: random.",
)
DIM = flags.DEFINE_integer("dim", 256, "Width of the model.", lower_bound=1)
DEPTH = flags.DEFINE_integer("depth", 8, "Blocks of the model.", lower_bound=1)
_PATCH_SIZE = flags.DEFINE_integer(
    "patch_size", None, "Pixels. Default: the preset's.", lower_bound=1
)
SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of everything that is random.", lower_bound=0
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    "auto",
    ("auto", "float32", "bfloat16"),
    "What to compute in; auto is bfloat16 but on a CPU.",
)
DEPTHWISE = flags.DEFINE_list(
    "depthwise", None, "Words for `set_depthwise`, such as auto."
)
_WORKERS = flags.DEFINE_integer(
    "workers",
    None,
    "Processes that make batches. Default: cores less one.",
    lower_bound=0,
)
MINUTES = flags.DEFINE_float(
    "minutes",
    None,
    "Save and stop then; the same command goes on.",
    lower_bound=0,
)
_SAVE_EVERY = flags.DEFINE_integer(
    "save_every",
    None,
    "Updates between checkpoints. Default: an epoch's.",
    lower_bound=1,
)
_LOG_EVERY = flags.DEFINE_integer(
    "log_every", 100, "Updates between lines.", lower_bound=1
)


def read_settings():
    """Reads the preset, and changes in it what the flags say.

    Returns:
        What `read_preset` returns.
    """
    preset = read_preset(_PRESET.value)
    config = preset.config
    batch_size = _given(_BATCH_SIZE, config.batch_size)
    scaled = config.learning_rate * batch_size / config.batch_size
    config.learning_rate = _given(_LEARNING_RATE, scaled)
    config.batch_size = batch_size
    config.epochs = _given(_EPOCHS, config.epochs)
    config.seed = SEED.value
    config.precision = _PRECISION.value
    preset.patch_size = _given(_PATCH_SIZE, preset.patch_size)
    return preset


def _given(flag, default):
    return default if flag.value is None else flag.value


def num_workers():
    """Returns how many processes are to make batches."""
    cores = len(os.sched_getaffinity(0))
    return _given(_WORKERS, max(cores - 1, 1))


def settle_steps(config, num_images):
    """Adds to the settings what depends on the data.

    Args:
        config: `config` of `read_settings`, which is changed.
        num_images: Integer, how many there are to train on.

    Raises:
        ValueError: If they are too few.
    """
    most = num_images // config.batch_size
    if most < 1:
        raise ValueError(
            f"Argument `batch_size` must be at most {num_images}, the number "
            f"of training images. Received: batch_size={config.batch_size}"
        )
    config.steps_per_epoch = _given(_STEPS, most)
    if config.steps_per_epoch > most:
        raise ValueError(
            f"Argument `steps_per_epoch` must be at most {most}, for "
            f"{num_images} images in batches of {config.batch_size}. "
            f"Received: steps_per_epoch={config.steps_per_epoch}"
        )
    config.save_every = _given(_SAVE_EVERY, config.steps_per_epoch)
    config.log_every = _LOG_EVERY.value


def describe(preset, num_images, class_names):
    """Collects what the result depends on, for `config.json`.

    Args:
        preset: What `read_settings` returns, after `settle_steps`.
        num_images: Integer, how many there are to train on.
        class_names: Names of the classes.

    Returns:
        Dictionary, ready for JSON.
    """
    config = {
        name: value
        for name, value in vars(preset.config).items()
        if name not in ("save_every", "log_every")
    }
    return {
        **config,
        "recipe": _as_dictionary(preset.recipe),
        "image_size": SIZE,
        "train_images": num_images,
        "class_names": list(class_names),
        "model": {
            "preset": _PRESET.value,
            "dim": DIM.value,
            "depth": DEPTH.value,
            "patch_size": _PATCH_SIZE.value,
        },
        "weights": WEIGHTS.value,
        "backend": "jax",
        "depthwise": DEPTHWISE.value,
    }


def _as_dictionary(value):
    if isinstance(value, types.SimpleNamespace):
        return {name: _as_dictionary(x) for name, x in vars(value).items()}
    return value
