"""Fine-tuning a ConvMixer for a smaller file, in another process."""

import dataclasses
import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np

import convmixer_tf
from convmixer_tf.export.deployment import deploy
from convmixer_tf.export.preparation import check_backend
from convmixer_tf.export.preparation import classifier_of
from convmixer_tf.export.qat import exchange
from convmixer_tf.export.qat import graph
from convmixer_tf.export.qat.config import TuningConfig
from convmixer_tf.export.tflite import TARGETS
from convmixer_tf.export.tflite import check_calibration
from convmixer_tf.export.tflite import static_shape

# On so many images the twin is compared with the model.
_PARITY_IMAGES = 32
_ROUNDED = ("int8", "dynamic", "int4")
_PACKAGES = ("tensorflow_model_optimization", "tf_keras")


def fine_tune(
    model,
    folder,
    images,
    labels,
    config=None,
    *,
    quantization="int8",
    calibration_images=None,
):
    """Fine-tunes a ConvMixer in the form in which it is to be exported.

    The model is rewritten by `deploy` for the file's number format, so that
    what is trained are the weights of the file. That runs in a process of its
    own, in Keras 2, by tensorflow-model-optimization, after it was checked
    that both compute the same. `export_tflite` takes the result.

    A call that was interrupted goes on where the last checkpoint was; one
    that was finished returns at once what it left. Its progress is logged.

    Args:
        model: What `ConvMixer` or a variant built, a classifier for images of
            a static height and width. It is not changed.
        folder: Path of a folder for the run's files. It is made if it isn't
            there.
        images: uint8 array of pixels, (images, height, width, channels), to
            train on. They and their arrays of float32, batch by batch, must
            fit into memory.
        labels: Integer array (images,), the right output of each.
        config: A `TuningConfig`.
        quantization: The number format of the file, as in `export_tflite`.
        calibration_images: For `"int8"`, as in `export_tflite`. Rounding
            starts from their ranges.

    Returns:
        A `keras.Model` that `deploy` made, with the new weights; and a
        dictionary of what was found: `"parity"`, how far off the twin was;
        `"updates"`; `"loss"` and `"top1"` of the last epoch; `"seconds"`;
        `"before"` and `"after"`, logits of the twin, rounded as the method
        does, for the first 256 calibration images; and `"zeros"` and
        `"values"` of the kernels of the 1 x 1 convolutions: the fraction of
        weights that are 0, and the most different values in a kernel.

    Raises:
        ImportError: If the extra `qat` is not installed.
        RuntimeError: If the other process fails.
        ValueError: If an argument is invalid, or the folder has a run with
            others.

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
    settings = {"quantization": quantization, "config": config.decisive()}
    _begin(folder, deployed, inputs, settings, config)
    if exchange.read_json(folder, exchange.RESULT) is None:
        _run_worker(folder)
    return _finish(folder, deployed)


def _prepare(model, images, labels, config, quantization, calibration):
    """Checks everything, and rewrites the model."""
    check_installed()
    check_backend("Models to be fine-tuned for TFLite")
    schemes = _ROUNDED if config.method == "quantize" else tuple(TARGETS)
    if quantization not in schemes:
        raise ValueError(
            f"Argument `quantization` must be one of {schemes} for the method "
            f"{config.method!r}. Received: quantization={quantization!r}"
        )
    shape = static_shape(model)
    if quantization == "int8":
        calibration = check_calibration(calibration, shape)
    deployed = deploy(model, _target(config.method, quantization))
    classifier = classifier_of(deployed)
    name = classifier and getattr(classifier.activation, "__name__", "")
    if name not in ("softmax", "linear"):
        raise ValueError(
            "The model must end in a classifier of one class per image, with "
            'activation "softmax" or none. '
            f"Received: {model!r}, which ends in {name or 'features'}"
        )
    labels = np.asarray(labels)
    _check_examples(images, labels, shape, model.output_shape[-1])
    images = np.asarray(images)
    if calibration is None:
        calibration = images[:0]
    probes = np.float32(images[:_PARITY_IMAGES])
    expected = deployed.predict(probes, batch_size=8, verbose=0)
    return deployed, {
        "images": images,
        "labels": labels.astype(np.int64),
        "calibration": np.uint8(np.rint(calibration)),
        "expected": expected,
    }


def _target(method, quantization):
    """Decides for what the model is rewritten.

    Weights are pruned and clustered by their size in a whole kernel. With the
    scales of the normalisations divided into the kernels, as for float files,
    those of a nearly dead channel would dwarf all others.
    """
    target = TARGETS[quantization]
    if method in ("prune", "cluster") and target == "litert":
        return "litert_dynamic"
    return target


def check_installed():
    """Raises `ImportError` unless the extra `qat` is installed."""
    missing = [
        name for name in _PACKAGES if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ImportError(
            f"Fine-tuning for small files needs {' and '.join(missing)}. "
            'Install the extra: pip install "convmixer_tf[qat]".'
        )


def _check_examples(images, labels, shape, classes):
    if np.shape(images)[1:] != shape or not len(images):
        raise ValueError(
            "Argument `images` must be an array of shape (images, "
            f"{', '.join(map(str, shape))}). Received: shape {np.shape(images)}"
        )
    if np.asarray(images).dtype != np.uint8:
        raise ValueError(
            "Argument `images` must be of pixels, uint8. "
            f"Received: {np.asarray(images).dtype}"
        )
    if (
        labels.shape != (len(images),)
        or labels.dtype.kind not in "iu"
        or labels.min() < 0
        or labels.max() >= classes
    ):
        raise ValueError(
            "Argument `labels` must be an integer for each image, below "
            f"{classes}, the number of the model's classes. Received: shape "
            f"{labels.shape}, {labels.dtype}, up to {labels.max()}"
        )


def _begin(folder, deployed, inputs, settings, config):
    """Writes what the worker reads, unless it is there."""
    nodes = graph.describe(deployed)
    weights = exchange.flatten(graph.weights_of(deployed))
    given = {k: v for k, v in inputs.items() if k != "expected"}
    settings = {
        **settings,
        "model": exchange.fingerprint(weights),
        "data": exchange.fingerprint(given),
    }
    known = exchange.read_json(folder, exchange.SETTINGS)
    if known is None:
        os.makedirs(folder, exist_ok=True)
        exchange.write_json(folder, exchange.GRAPH, nodes)
        exchange.write_arrays(folder, exchange.WEIGHTS, weights)
        exchange.write_arrays(folder, exchange.INPUTS, inputs)
    else:
        known["config"] = TuningConfig(**known["config"]).decisive()
        changed = [k for k in settings if known[k] != settings[k]]
        if changed:
            raise ValueError(
                f"In `{folder}` is a run with another {', '.join(changed)}. "
                "Choose another folder, or remove it."
            )
    settings["config"] = dataclasses.asdict(config)
    exchange.write_json(folder, exchange.SETTINGS, settings)


def _run_worker(folder):
    # Where this package is imported from need not be on the other's path.
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
            f"Fine-tuning in `{folder}` ended with status {result.returncode}; "
            "what it wrote to the standard error says why. The same call goes "
            "on from its last checkpoint."
        )


def _finish(folder, deployed):
    """Gives the deployed model its new weights, and collects the findings."""
    arrays = exchange.read_arrays(folder, exchange.TUNED)
    kinds = {"weights": {}, "outputs": {}}
    for key, array in arrays.items():
        kind, _, name = key.partition(":")
        kinds[kind][name] = array
    weights = exchange.unflatten(kinds["weights"])
    for name, new in weights.items():
        deployed.get_layer(name).set_weights(new)
    kernels = [
        new[0]
        for name, new in weights.items()
        if new[0].shape[:2] == (1, 1) and name.partition("_pointwise")[1]
    ]
    zeros = sum(np.sum(kernel == 0) for kernel in kernels)
    return deployed, {
        **exchange.read_json(folder, exchange.RESULT),
        **kinds["outputs"],
        "zeros": float(zeros / sum(kernel.size for kernel in kernels)),
        "values": max(len(np.unique(kernel)) for kernel in kernels),
    }
