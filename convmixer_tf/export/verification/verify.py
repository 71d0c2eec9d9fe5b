"""Running an exported file against its model, on the same images."""

import dataclasses
import os
import tempfile

import numpy as np

from convmixer_tf.export.preparation import in_float32
from convmixer_tf.export.verification import latency
from convmixer_tf.export.verification.comparison import compare_classifiers
from convmixer_tf.export.verification.comparison import compare_features
from convmixer_tf.export.verification.limits import Limits
from convmixer_tf.export.verification.limits import default_limits
from convmixer_tf.export.verification.report import Report
from convmixer_tf.export.verification.runtimes import KerasRuntime
from convmixer_tf.export.verification.runtimes import open_runtime
from convmixer_tf.export.verification.runtimes import predict
from convmixer_tf.files import size_of
from convmixer_tf.models.probabilities import activation_of_keras
from convmixer_tf.models.probabilities import num_classes

# Fewer say nothing; a thousand tell an agreement of .999 from one of .99.
MIN_IMAGES = 10


def verify(
    model,
    artefact,
    images,
    labels=None,
    *,
    limits=None,
    runtime=None,
    signature=None,
    features=False,
    max_pixel=255,
    plain=None,
    rounds=7,
    threads=1,
):
    """Compares an exported file with its model, in another runtime.

    Args:
        model: The `keras.Model` that the artefact was made from. Models in
            half precision are compared in float32, as they are exported.
        artefact: Path of a SavedModel's folder or of a `.tflite`, `.onnx` or
            `.keras` file.
        images: Real images, as the model takes them: an array of pixels in
            [0, 255] of shape (images, height, width, channels), as
            `data.read_images` gives it. At least `MIN_IMAGES`.
        labels: Integer array of shape (images,), the right class of each
            image, or -1 where it is not known. `None` if none is.
        limits: `Limits`, or a dictionary of what of `default_limits` of the
            artefact's scheme to change.
        runtime: One of `RUNTIMES`, as in `open_runtime`.
        signature: Which signature of a SavedModel to call.
        features: Whether the model gives features in place of predictions.
        max_pixel: What the artefact takes for white, such as 1 for a TF Hub
            module of that convention. The model takes 255.
        plain: Path of a `.tflite` file to compare the latency of a `.tflite`
            file with. Defaults to the plain conversion, which is made for it.
            Other artefacts are compared with Keras.
        rounds: Integer, how often the latency is measured; 0 for not at all.
        threads: Integer, how many threads the artefact may use.

    Returns:
        A `Report`. Its `broken` names the limits that are broken, if any.

    Raises:
        FileNotFoundError: If there is nothing at `artefact`.
        ImportError: If the runtime is not installed.
        ValueError: If the artefact is damaged, or takes or gives other shapes
            than the model, or an argument is invalid.

    Example:

    ```python
    report = verify(model, "model.tflite", images)
    print(report.table())
    ```
    """
    images, labels = _check_images(images, labels)
    reference = KerasRuntime(in_float32(model))
    with open_runtime(
        artefact, runtime=runtime, threads=threads, signature=signature
    ) as opened:
        actual = predict(opened, images, max_pixel)
        expected = predict(reference, images)
        _check_outputs(actual, expected, labels)
        if features:
            found = compare_features(actual, expected)
        else:
            activation = activation_of_keras(model)
            found = _compare(actual, expected, labels, activation)
        description = dict(opened.description)
        seconds = None
        if rounds:
            seconds = _measure(
                model, opened, reference, images, rounds, threads, plain
            )
        name = opened.name
    if not isinstance(limits, Limits):
        limits = dataclasses.replace(
            default_limits(description["scheme"]), **(limits or {})
        )
    return Report(
        artefact=os.fspath(artefact),
        runtime=name,
        size=size_of(artefact),
        images=len(images),
        labelled=int(np.sum(labels >= 0)),
        latency=seconds,
        limits=limits,
        broken=limits.broken_by(_findings(found, description)),
        **found,
        **description,
    )


def _check_images(images, labels):
    images = np.asarray(images)
    if images.ndim != 4 or len(images) < MIN_IMAGES:
        raise ValueError(
            f"Argument `images` must be at least {MIN_IMAGES} images, an array "
            "of shape (images, height, width, channels). Received: shape "
            f"{images.shape}"
        )
    if not 1 < images.max() <= 255 or images.min() < 0:
        raise ValueError(
            "Argument `images` must be of pixels in [0, 255]. Received: "
            f"values from {images.min():g} to {images.max():g}"
        )
    if labels is None:
        labels = np.full(len(images), -1)
    labels = np.asarray(labels)
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"Argument `labels` must be {len(images)} integers, one for each "
            f"image. Received: shape {labels.shape}, {labels.dtype}"
        )
    return images, labels


def _check_outputs(actual, expected, labels):
    if actual.shape != expected.shape:
        raise ValueError(
            "The artefact must give what the model gives, an array of shape "
            f"{expected.shape}, for these images: it was made from another "
            "model, or from a part of it, as features are. Received: shape "
            f"{actual.shape}"
        )
    if labels.max() >= num_classes(expected.shape[-1]):
        raise ValueError(
            "Argument `labels` must be below "
            f"{num_classes(expected.shape[-1])}, the number "
            f"of the model's classes. Received: {labels.max()}"
        )


def _compare(actual, expected, labels, activation):
    """Compares classifiers, over all of their classes too."""
    found = compare_classifiers(actual, expected, labels, activation)
    probabilities = found["differences"]["probabilities"]
    # Over all classes: a mean of theirs is small where there are many.
    probabilities["total_variation"] = (
        probabilities["mean"] * num_classes(expected.shape[-1]) / 2
    )
    return found


def _measure(model, opened, reference, images, rounds, threads, plain):
    """Times the artefact against Keras or, if it is TFLite, its like."""
    if opened.description["delegation"] is None:
        runtimes = {"artefact": opened, "baseline": reference}
        seconds = latency.take_turns(runtimes, images[0], rounds)
        return latency.summarise(seconds, reference.name)
    with tempfile.TemporaryDirectory() as directory:
        what = f"`{plain}`"
        if plain is None:
            made = latency.export_plain(
                model, opened.description["scheme"], images, directory
            )
            if made is None:
                return None
            plain, what = made
        with open_runtime(plain, threads=threads) as other:
            runtimes = {"artefact": opened, "baseline": other}
            seconds = latency.take_turns(runtimes, images[0], rounds)
    return latency.summarise(seconds, what)


def _findings(found, description):
    """Collects what there are limits for."""
    if "features" in found["differences"]:
        features = found["differences"]["features"]
        largest, mean = features["max_relative"], features["mean_relative"]
        variation = None
    else:
        probabilities = found["differences"]["probabilities"]
        largest, mean = probabilities["max"], probabilities["mean"]
        variation = probabilities["total_variation"]
    accuracy = found["accuracy"]
    return {
        "agreement": found["agreement"],
        "max_difference": largest,
        "mean_difference": mean,
        "total_variation": variation,
        "accuracy_loss": accuracy and accuracy["model"] - accuracy["artefact"],
        "custom_operators": description["custom_operators"],
    }
