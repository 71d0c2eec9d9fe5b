"""What `train_cifar10_jax.py` does."""

import math
import pathlib
import time

import jax
import keras
from absl import app
from absl import flags
from absl import logging

from convmixer_tf import ConvMixer
from convmixer_tf.files import dump_json
from convmixer_tf.files import write_text
from convmixer_tf.layers import set_depthwise
from convmixer_tf.model_card import run_card
from convmixer_tf.models import save_model
from convmixer_tf.preprocessing import CIFAR10_MEAN
from convmixer_tf.preprocessing import CIFAR10_STD
from convmixer_tf.stopping import stop_signals
from jax_cifar10 import options
from jax_cifar10.batches import Batches
from jax_cifar10.engine import Engine
from jax_cifar10.folder import check_folder
from jax_cifar10.folder import environment
from jax_cifar10.images import SIZE
from jax_cifar10.images import load_images
from jax_cifar10.images import open_images
from jax_cifar10.run import Run

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


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
    preset = options.read_settings()
    _settle_precision(preset.config)
    _apply_depthwise()
    output = pathlib.Path(options.OUTPUT.value)
    check_folder(output, {})
    class_names = open_images(options.DATA.value, output / "images")
    count = len(load_images(output / "images", "train"))
    options.settle_steps(preset.config, count)
    settings = options.describe(preset, count, class_names)
    check_folder(output, settings)
    run = _begin(preset, output, settings)
    arguments = (
        preset.recipe,
        len(class_names),
        preset.config.batch_size,
        preset.config.seed,
    )
    code = _train(run, arguments, began)
    if code is not None:
        raise SystemExit(code)
    _finish(run, preset, output, class_names, count)


def _train(run, arguments, began):
    """Trains until the end, a signal, or the time is over.

    Returns:
        The exit code if the run must stop before its end, or else `None`.
    """
    minutes = options.MINUTES.value
    end = math.inf if minutes is None else began + 60 * minutes
    with (
        stop_signals() as signals,
        Batches(
            run.folder / "images",
            arguments,
            run.config.steps_per_epoch,
            options.num_workers(),
        ) as batches,
    ):
        ended = run.train(
            batches.between(run.progress.step, run.total_steps),
            lambda: bool(signals) or time.monotonic() > end,
        )
    if ended:
        return None
    logging.info(
        "Saved step %d of %d. The same command goes on.",
        run.progress.step,
        run.total_steps,
    )
    return 128 + signals[0] if signals else 0


def _settle_precision(config):
    if config.precision == "auto":
        on_cpu = jax.default_backend() == "cpu"
        config.precision = "float32" if on_cpu else "bfloat16"


def _apply_depthwise():
    words = options.DEPTHWISE.value or ()
    if len(words) > 3:
        raise ValueError(
            "--depthwise must be up to three words, separated by commas. "
            f"Received: {','.join(words)}"
        )
    set_depthwise(*words)


def _begin(preset, output, settings):
    """Builds the model and its run, and says in the folder what it is of."""
    keras.utils.set_random_seed(preset.config.seed)
    keras.config.set_dtype_policy(_POLICIES[preset.config.precision])
    classes = len(settings["class_names"])
    try:
        engine = Engine(_make_model(preset, classes), preset.config)
    finally:
        keras.config.set_dtype_policy("float32")
    dump_json(output / "config.json", settings)
    dump_json(output / "environment.json", environment())
    eval_images = load_images(output / "images", "test")
    return Run(engine, preset.config, eval_images, output)


def _make_model(preset, classes, classifier_activation=None):
    return ConvMixer(
        options.DIM.value,
        options.DEPTH.value,
        preset.kernel_size,
        preset.patch_size,
        input_shape=(SIZE, SIZE, 3),
        classes=classes,
        classifier_activation=classifier_activation,
        weights=options.WEIGHTS.value,
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
