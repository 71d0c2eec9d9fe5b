"""The command line of `train_cifar10_jax.py`."""

import math
import os
import pathlib
import time
import types

import jax
import keras
from absl import app
from absl import flags
from absl import logging

from convmixer_tf import ConvMixer
from convmixer_tf.layers import set_depthwise
from convmixer_tf.model_card import run_card
from convmixer_tf.models import save_model
from convmixer_tf.preprocessing import CIFAR10_MEAN
from convmixer_tf.preprocessing import CIFAR10_STD
from convmixer_tf.stopping import stop_signals
from convmixer_tf.validation import check_positive_integer
from jax_cifar10.batches import Batches
from jax_cifar10.engine import Engine
from jax_cifar10.folder import check_folder
from jax_cifar10.folder import dump_json
from jax_cifar10.folder import environment
from jax_cifar10.folder import write_text
from jax_cifar10.images import SIZE
from jax_cifar10.images import load_images
from jax_cifar10.images import open_images
from jax_cifar10.presets import NAMES
from jax_cifar10.presets import read_preset
from jax_cifar10.run import Run

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}

_DATA = flags.DEFINE_multi_string(
    "data", None, "Folder or archive; repeat it for several.", required=True
)
_PRESET = flags.DEFINE_enum("preset", "25", NAMES, "Which settings.")
_OUTPUT = flags.DEFINE_string(
    "output", "runs/cifar10_jax", "Folder of the run."
)
_EPOCHS = flags.DEFINE_integer("epochs", None, "Default: the preset's.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Default: the preset's.")
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate",
    None,
    "Default: the preset's, in proportion to the batch size.",
)
_STEPS = flags.DEFINE_integer(
    "steps_per_epoch", None, "Updates per epoch. Default: all images once."
)
_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "File to start from, such as another run's model.keras. Default: random.",
)
_DIM = flags.DEFINE_integer("dim", 256, "Width of the model.")
_DEPTH = flags.DEFINE_integer("depth", 8, "Blocks of the model.")
_PATCH_SIZE = flags.DEFINE_integer(
    "patch_size", None, "Pixels. Default: the preset's."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of everything that is random.")
_PRECISION = flags.DEFINE_enum(
    "precision",
    "auto",
    ("auto", *_POLICIES),
    "What to compute in; auto is bfloat16 but on a CPU.",
)
_DEPTHWISE = flags.DEFINE_list(
    "depthwise", None, "Words for `set_depthwise`, such as auto."
)
_WORKERS = flags.DEFINE_integer(
    "workers", None, "Processes that make batches. Default: cores less one."
)
_MINUTES = flags.DEFINE_float(
    "minutes", None, "Save and stop then; the same command goes on."
)
_SAVE_EVERY = flags.DEFINE_integer(
    "save_every", None, "Updates between checkpoints. Default: an epoch's."
)
_LOG_EVERY = flags.DEFINE_integer("log_every", 100, "Updates between lines.")


def main(argv):
    """Trains as the flags say."""
    began = time.monotonic()
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.INFO)
    if keras.backend.backend() != "jax":
        raise ValueError(
            "This recipe runs on Keras' JAX backend; unset KERAS_BACKEND. "
            f"Received: {keras.backend.backend()}"
        )
    preset = _preset()
    output = pathlib.Path(_OUTPUT.value)
    check_folder(output, {})
    _apply_depthwise()
    class_names = open_images(_DATA.value, output / "images")
    images = load_images(output / "images", "train")
    eval_images = load_images(output / "images", "test")
    _settle_steps(preset.config, len(images))
    settings = _settings(preset, len(images), class_names)
    check_folder(output, settings)
    run = _begin(preset, output, eval_images, settings)
    arguments = (
        preset.recipe,
        len(class_names),
        preset.config.batch_size,
        _SEED.value,
    )
    with (
        stop_signals() as signals,
        Batches(
            output / "images",
            arguments,
            preset.config.steps_per_epoch,
            _num_workers(),
        ) as batches,
    ):
        minutes = math.inf if _MINUTES.value is None else _MINUTES.value
        end = began + 60 * minutes
        ended = run.train(
            batches.between(run.progress.step, run.total_steps),
            lambda: bool(signals) or time.monotonic() > end,
        )
    if not ended:
        logging.info(
            "Saved step %d of %d. The same command goes on.",
            run.progress.step,
            run.total_steps,
        )
        raise SystemExit(128 + signals[0] if signals else 0)
    _finish(run, preset, output, class_names, len(images))


def _preset():
    """Reads the preset, and changes in it what the flags say."""
    preset = read_preset(_PRESET.value)
    config = preset.config
    for name in ("epochs", "batch_size", "steps_per_epoch", "save_every"):
        value = flags.FLAGS[name].value
        if value is not None:
            check_positive_integer(name, value)
    for name in ("dim", "depth", "log_every"):
        check_positive_integer(name, flags.FLAGS[name].value)
    for name in ("learning_rate", "minutes"):
        value = flags.FLAGS[name].value
        if value is not None and not value > 0:
            raise ValueError(
                f"Argument `{name}` must be above 0. Received: {name}={value}"
            )
    for name in ("seed", "workers"):
        value = flags.FLAGS[name].value
        if value is not None and value < 0:
            raise ValueError(
                f"Argument `{name}` must be a non-negative integer. "
                f"Received: {name}={value}"
            )
    batch_size = _given(_BATCH_SIZE, config.batch_size)
    scaled = config.learning_rate * batch_size / config.batch_size
    config.learning_rate = _given(_LEARNING_RATE, scaled)
    config.batch_size = batch_size
    config.epochs = _given(_EPOCHS, config.epochs)
    config.seed = _SEED.value
    config.precision = _PRECISION.value
    if config.precision == "auto":
        on_cpu = jax.default_backend() == "cpu"
        config.precision = "float32" if on_cpu else "bfloat16"
    preset.patch_size = _given(_PATCH_SIZE, preset.patch_size)
    return preset


def _given(flag, default):
    return default if flag.value is None else flag.value


def _apply_depthwise():
    if _DEPTHWISE.value:
        if len(_DEPTHWISE.value) > 3:
            raise ValueError(
                "--depthwise must be up to three words, separated by commas. "
                f"Received: {','.join(_DEPTHWISE.value)}"
            )
        set_depthwise(*_DEPTHWISE.value)


def _num_workers():
    cores = len(os.sched_getaffinity(0))
    return _given(_WORKERS, max(cores - 1, 1))


def _settle_steps(config, num_images):
    """Adds to the settings what depends on the data."""
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


def _settings(preset, num_images, class_names):
    """Collects what the result depends on, for `config.json`."""
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
            "dim": _DIM.value,
            "depth": _DEPTH.value,
            "patch_size": _PATCH_SIZE.value,
        },
        "weights": _WEIGHTS.value,
        "backend": "jax",
        "depthwise": _DEPTHWISE.value,
    }


def _as_dictionary(value):
    if isinstance(value, types.SimpleNamespace):
        return {name: _as_dictionary(x) for name, x in vars(value).items()}
    return value


def _begin(preset, output, eval_images, settings):
    """Builds the model and its run, and says in the folder what it is of."""
    keras.utils.set_random_seed(_SEED.value)
    keras.config.set_dtype_policy(_POLICIES[preset.config.precision])
    classes = len(settings["class_names"])
    try:
        engine = Engine(_make_model(preset, classes), preset.config)
    finally:
        keras.config.set_dtype_policy("float32")
    dump_json(output / "config.json", settings)
    dump_json(output / "environment.json", environment())
    return Run(engine, preset.config, eval_images, output)


def _make_model(preset, classes, classifier_activation=None):
    return ConvMixer(
        _DIM.value,
        _DEPTH.value,
        preset.kernel_size,
        preset.patch_size,
        input_shape=(SIZE, SIZE, 3),
        classes=classes,
        classifier_activation=classifier_activation,
        weights=_WEIGHTS.value,
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
    )


def _finish(run, preset, output, class_names, num_images):
    """Writes the model, its card and the summary."""
    run.engine.store_weights()
    model = _make_model(preset, len(class_names), "softmax")
    model.set_weights(run.engine.model.get_weights())
    save_model(model, output / "model.keras", class_names, 1.0)
    summary = run.summarize()
    card = run_card(
        model, summary, class_names, num_images, len(run.eval_images), 1.0
    )
    write_text(output / "model.md", card.text())
    logging.info("Top-1 %.2f %%", 100 * summary["last"]["top1"])
