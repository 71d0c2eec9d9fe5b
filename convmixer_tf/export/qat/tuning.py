"""Quantization-aware training of a ConvMixer, in another process."""

import dataclasses
import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np

import convmixer_tf
from convmixer_tf.export.deploy import deploy
from convmixer_tf.export.preparation import check_backend
from convmixer_tf.export.preparation import check_image_model
from convmixer_tf.export.preparation import classifier_of
from convmixer_tf.export.qat import exchange
from convmixer_tf.export.qat import graph
from convmixer_tf.export.qat.config import QUANTIZATIONS
from convmixer_tf.export.qat.config import TuningConfig
from convmixer_tf.export.tflite import TARGETS
from convmixer_tf.export.tflite import check_calibration
from convmixer_tf.export.tflite import static_shape
from convmixer_tf.files import PathLike
from convmixer_tf.files import dump_json
from convmixer_tf.weights.effective import is_plain
from convmixer_tf.weights.loading import kernel_layers

# Number of images on which the Keras 2 model is compared.
_COMPARED_IMAGES = 32
_PACKAGES = ("tensorflow_model_optimization", "tf_keras")


def fine_tune(
    model: keras.Model,
    folder: PathLike,
    images: np.ndarray,
    labels: np.ndarray,
    config: TuningConfig | None = None,
    *,
    quantization: str = "int8",
    calibration_images: np.ndarray | None = None,
) -> tuple[keras.Model, dict]:
    """Fine-tunes a ConvMixer with numbers rounded as in a TFLite file.

    `deploy` rewrites the model for the file's number format, so that the file's
    weights are trained. The training runs in a separate process with Keras 2
    and tensorflow-model-optimization, after a check that both models compute
    the same. Pass the result to `export_tflite`.

    To resume an interrupted run from its last checkpoint, repeat the call. For
    a finished run, the call returns its result immediately. Progress is logged.

    Args:
        model: A classifier from `ConvMixer` or a variant, for images of a
            static height and width. It is not changed.
        folder: Path of a folder for the run's files. It is created if it does
            not exist.
        images: Training images, a uint8 array of pixels, (images, height,
            width, channels), at least one batch.
        labels: Integer array (images,), the class of each image.
        config: A `TuningConfig`.
        quantization: `"int8"` or `"int4"`, the number format of the file.
        calibration_images: Array of pixels, as in `export_tflite`. Required for
            `"int8"`. They determine the initial ranges.

    Returns:
        A deployed `keras.Model` with the new weights; and a dictionary:
        `"parity"`, the difference between the Keras 2 model and the deployed
        model before training, relative to the largest output; `"updates"`;
        `"loss"` and `"top1"`, means over the last epoch; and `"before"` and
        `"after"`, the logits of the first 256 calibration images before and
        after training, with rounding.

    Raises:
        ImportError: If the extra `qat` is not installed.
        NotADirectoryError: If `folder` is a file.
        RuntimeError: If the other process fails.
        ValueError: If an argument is invalid, or the folder holds a run with
            other arguments.

    Example:

    ```python
    deployed, found = fine_tune(
        model, "runs/qat", images, labels, calibration_images=some
    )
    export_tflite(
        deployed, "qat.tflite", quantization="int8", calibration_images=some
    )
    ```
    """
    config = config or TuningConfig()
    deployed, inputs = _prepare(
        model, images, labels, config, quantization, calibration_images
    )
    _write_inputs(folder, deployed, inputs, config, quantization)
    if exchange.read_json(folder, exchange.RESULT) is None:
        _run_worker(folder)
    return _read_result(folder, deployed)


def _prepare(model, images, labels, config, quantization, calibration):
    """Checks the arguments and rewrites the model."""
    check_installed()
    check_backend("Models for quantization-aware training")
    if quantization not in QUANTIZATIONS:
        raise ValueError(
            f"Argument `quantization` must be one of {QUANTIZATIONS}. "
            f"Received: quantization={quantization!r}"
        )
    check_image_model(model)
    shape = static_shape(model)
    _check_plain(model)
    if quantization == "int8" or calibration is not None:
        calibration = check_calibration(calibration, shape)
    deployed = deploy(model, TARGETS[quantization])
    classifier = classifier_of(deployed)
    name = classifier and getattr(classifier.activation, "__name__", "")
    if name not in ("softmax", "linear"):
        raise ValueError(
            "The model must end in a classifier of one class per image, with "
            'activation "softmax" or none. '
            f"Received: {model!r}, which ends in {name or 'features'}"
        )
    images, labels = np.asarray(images), np.asarray(labels)
    _check_examples(images, labels, shape, model.output_shape[-1], config)
    if calibration is None:
        calibration = images[:0]
    compared = np.float32(images[:_COMPARED_IMAGES])
    expected = deployed.predict(compared, batch_size=8, verbose=0)
    return deployed, {
        "images": images,
        "labels": labels.astype(np.int64),
        "calibration": np.uint8(np.rint(calibration)),
        "expected": expected,
    }


def check_installed():
    """Raises `ImportError` unless the extra `qat` is installed."""
    missing = [
        name for name in _PACKAGES if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ImportError(
            "Quantization-aware training needs "
            f"{' and '.join(missing)}. Install the extra: "
            'pip install "convmixer_tf[qat]".'
        )


def _check_plain(model):
    """Raises `ValueError` if a layer is quantized or has LoRA."""
    changed = [
        path.removesuffix("/kernel")
        for path, layer in kernel_layers(model).items()
        if not is_plain(layer)
    ]
    if changed:
        raise ValueError(
            "Argument `model` must not be quantized and must not have LoRA. "
            f"Received: {model!r}, whose layers {', '.join(changed[:3])} are "
            "quantized or have LoRA"
        )


def _check_examples(images, labels, shape, classes, config):
    if images.shape[1:] != shape or not len(images):
        raise ValueError(
            "Argument `images` must be an array of shape (images, "
            f"{', '.join(map(str, shape))}). Received: shape {images.shape}"
        )
    if images.dtype != np.uint8:
        raise ValueError(
            "Argument `images` must hold pixels as uint8. "
            f"Received: {images.dtype}"
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise ValueError(
            "Argument `labels` must be an integer array of shape "
            f"({len(images)},), one label for each image. "
            f"Received: shape {labels.shape}, {labels.dtype}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"Argument `labels` must hold integers from 0 to {classes - 1}, "
            f"since the model has {classes} classes. "
            f"Received: from {labels.min()} to {labels.max()}"
        )
    if config.batch_size > len(images):
        raise ValueError(
            f"Argument `batch_size` must be at most {len(images)}, the number "
            "of training images. Reduce it, or pass more images. "
            f"Received: batch_size={config.batch_size}"
        )


def _write_inputs(folder, deployed, inputs, config, quantization):
    """Writes the worker's inputs, unless they exist."""
    folder = pathlib.Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(
            f"Argument `folder` must be a folder. Received: the file `{folder}`"
        )
    nodes = graph.describe(deployed)
    weights = exchange.flatten(graph.weights_of(deployed))
    given = {k: v for k, v in inputs.items() if k != "expected"}
    settings = {
        "quantization": quantization,
        "config": config.result_settings(),
        "model": exchange.fingerprint(weights),
        "data": exchange.fingerprint(given),
    }
    known = exchange.read_json(folder, exchange.SETTINGS)
    if known is None:
        folder.mkdir(parents=True, exist_ok=True)
        dump_json(folder / exchange.GRAPH, nodes)
        exchange.write_arrays(folder, exchange.WEIGHTS, weights)
        exchange.write_arrays(folder, exchange.INPUTS, inputs)
    else:
        # A folder of an older version may have settings that were removed.
        known["config"] = {
            name: known["config"].get(name) for name in settings["config"]
        }
        changed = [k for k in settings if known[k] != settings[k]]
        if changed:
            raise ValueError(
                f"The folder `{folder}` holds a run with another "
                f"{', '.join(changed)}. Choose another folder, or remove it."
            )
    settings["config"] = dataclasses.asdict(config)
    dump_json(folder / exchange.SETTINGS, settings)


def _run_worker(folder):
    # The worker process may not have this package on its path.
    root = str(pathlib.Path(convmixer_tf.__file__).parents[1])
    paths = [root, os.environ.get("PYTHONPATH")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TF_USE_LEGACY_KERAS": "1",
    }
    result = subprocess.run(
        [sys.executable, "-m", f"{__package__}.worker", os.fspath(folder)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if result.returncode == exchange.EXPECTED_ERROR:
        raise ValueError(result.stdout.strip())
    if result.returncode:
        raise RuntimeError(
            f"Training in `{folder}` ended with status {result.returncode}. "
            "See its stderr for the reason. Repeat the call to resume from the "
            "last checkpoint."
        )


def _read_result(folder, deployed):
    """Sets the deployed model's new weights and reads the results."""
    arrays = exchange.read_arrays(folder, exchange.TUNED)
    kinds = {"weights": {}, "outputs": {}}
    for key, array in arrays.items():
        kind, _, name = key.partition(":")
        kinds[kind][name] = array
    for name, new in exchange.unflatten(kinds["weights"]).items():
        deployed.get_layer(name).set_weights(new)
    found = exchange.read_json(folder, exchange.RESULT)
    return deployed, {**found, **kinds["outputs"]}
