"""Compares an exported file with its model on the same images."""

import dataclasses
import json
import os
import warnings

import keras
import numpy as np

from convmixer_tf.export.preparation import in_float32
from convmixer_tf.export.verification.limits import Limits
from convmixer_tf.export.verification.limits import default_limits
from convmixer_tf.export.verification.runtimes import keras_runtime
from convmixer_tf.export.verification.runtimes import open_runtime
from convmixer_tf.export.verification.runtimes import predict
from convmixer_tf.files import PathLike
from convmixer_tf.files import replaced
from convmixer_tf.files import size_of
from convmixer_tf.intervals import exact_interval
from convmixer_tf.intervals import paired_interval
from convmixer_tf.models.probabilities import activation_of_keras
from convmixer_tf.models.probabilities import num_classes
from convmixer_tf.models.probabilities import probabilities
from convmixer_tf.models.probabilities import resolve_activation

# Fewer images are useless. A thousand can distinguish .999 from .99 agreement.
MIN_IMAGES = 10


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of `verify`.

    Attributes:
        artifact: Path of the file or folder.
        runtime: Name and version of the runtime.
        quantization: The number format, as `default_limits` takes it.
        size: Integer, in bytes.
        images: Integer, the number of images.
        labeled: Integer, the number of images with a label.
        differences: Dictionary from a quantity (`"probabilities"`, `"logits"`,
            `"features"`) to the `"max"`, `"mean"`, `"max_relative"` and
            `"mean_relative"` absolute difference from the model, or `None`.
            Probabilities also have the mean `"total_variation"` distance.
        agreement: Fraction of the images with the same top class.
        agreement_interval: Its 95 % interval, which is wide for few images.
        classes_seen: Integer, the number of different classes that the model
            predicts. If there is only one, the agreement is meaningless.
        accuracy: Top-1 of `"model"` and `"artifact"`, or `None`.
        accuracy_loss_interval: The 95 % interval of the drop, or `None`.
        inputs: List of a dictionary per input: name, shape, dtype, scale, zero
            point.
        outputs: The same for the outputs.
        operators: Dictionary from names to counts.
        custom_operators: Names of operators not built into the runtime.
        delegation: `"partitions"` and `"not_delegated"`, the operators that
            XNNPACK does not run; `None` if the runtime has no delegates.
        limits: The `Limits` that were checked.
        broken: Dictionary from the name of each broken limit to a sentence.
    """

    artifact: str
    runtime: str
    quantization: str
    size: int
    images: int
    labeled: int
    differences: dict
    agreement: float | None
    agreement_interval: tuple | None
    classes_seen: int | None
    accuracy: dict | None
    accuracy_loss_interval: tuple | None
    inputs: list
    outputs: list
    operators: dict
    custom_operators: list
    delegation: dict | None
    limits: Limits
    broken: dict

    @property
    def passed(self):
        """Whether no limit is broken."""
        return not self.broken

    def to_dict(self):
        """Returns everything as a dictionary, ready for JSON."""
        return {**dataclasses.asdict(self), "passed": self.passed}

    def save(self, path):
        """Writes a JSON file, replacing an existing one.

        Args:
            path: Path of the file.
        """
        with replaced(path) as unfinished, open(unfinished, "w") as file:
            json.dump(self.to_dict(), file, indent=1)

    def figures(self):
        """Formats size and comparison as a dictionary from names to texts."""
        rows = {
            "number format": self.quantization,
            "size": f"{self.size:,} bytes",
        }
        if self.accuracy:
            theirs, ours = self.accuracy["artifact"], self.accuracy["model"]
            rows["top-1 accuracy"] = f"{theirs:.2%}, model {ours:.2%}"
        if self.agreement is not None:
            note = ""
            if self.classes_seen == 1:
                note = ", but the model predicts the same class for all images"
            low, high = self.agreement_interval
            rows["top-1 agreement"] = f"{self.agreement:.2%}{note}"
            rows["its 95 % interval"] = f"{low:.2%} to {high:.2%}"
        for quantity, found in self.differences.items():
            if found:
                text = f"max {found['max']:.3g}, mean {found['mean']:.3g}"
                if "total_variation" in found:
                    text += f", total variation {found['total_variation']:.3g}"
                rows[f"difference of {quantity}"] = text
        return rows

    def table(self):
        """Formats the report as a Markdown table."""
        rows = {
            "artifact": self.artifact,
            "runtime": self.runtime,
            "images": f"{self.images}, {self.labeled} with a label",
            **self.figures(),
            "inputs": "; ".join(map(describe_tensor, self.inputs)),
            "outputs": "; ".join(map(describe_tensor, self.outputs)),
            "operators": _counts(self.operators),
            "custom operators": ", ".join(self.custom_operators) or "none",
        }
        if self.delegation:
            left = _counts(self.delegation["not_delegated"]) or "nothing"
            partitions = self.delegation["partitions"]
            rows["not in XNNPACK"] = f"{left} ({partitions} partitions)"
        rows["verdict"] = "; ".join(self.broken.values()) or "within limits"
        lines = [f"| {name} | {value} |" for name, value in rows.items()]
        return "\n".join(["| | |", "|---|---|", *lines])


def describe_tensor(tensor):
    """Formats an input or output of a `Report`."""
    sides = " x ".join(str(side or "?") for side in tensor["shape"])
    text = f"{tensor['name']}: {sides}, {tensor['dtype']}"
    if tensor["scale"]:
        text += f", scale {tensor['scale']:g}"
        text += f", zero point {tensor['zero_point']}"
    return text


def _counts(counts):
    return ", ".join(f"{number} {name}" for name, number in counts.items())


def verify(
    model: keras.Model,
    artifact: PathLike,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    limits: Limits | dict | None = None,
    runtime: str | None = None,
    signature: str | None = None,
    features: bool = False,
    max_pixel: int = 255,
    threads: int = 1,
    rounds: None = None,
    plain: None = None,
) -> Report:
    """Compares an exported file with its model in another runtime.

    Args:
        model: The `keras.Model` that was exported. A model in half precision is
            compared in float32, like its export.
        artifact: Path of a SavedModel folder or a `.tflite`, `.onnx` or
            `.keras` file.
        images: Real images: an array of pixels in [0, 255] of shape (images,
            height, width, channels), as from `data.read_images`. At least
            `MIN_IMAGES`.
        labels: Integer array of shape (images,), the correct class of each
            image, or -1 if unknown. `None` if all are unknown.
        limits: `Limits`, or a dictionary of changes to `default_limits` of the
            file's number format.
        runtime: One of `RUNTIMES`, as in `open_runtime`.
        signature: Signature of a SavedModel to call.
        features: Whether the model returns features instead of predictions.
        max_pixel: Value of a white pixel in the file, such as 1 for a TF Hub
            module with that convention. The model takes 255.
        threads: Integer, the number of threads of the file's runtime.
        rounds: Deprecated and ignored. Use `export/benchmark.py` for latency.
        plain: Deprecated and ignored.

    Returns:
        A `Report`. Its `broken` has the broken limits, if any.

    Raises:
        FileNotFoundError: If `artifact` does not exist.
        ImportError: If the runtime is not installed.
        ValueError: If the file is damaged, if its shapes differ from the
            model's, or if an argument is invalid.

    Example:

    ```python
    report = verify(model, "model.tflite", images)
    print(report.table())
    ```
    """
    if (rounds, plain) != (None, None):
        warnings.warn(
            "Arguments `rounds` and `plain` are ignored and will be removed. "
            "`verify` does not measure latency. Use export/benchmark.py.",
            DeprecationWarning,
            stacklevel=2,
        )
    images, labels = _check_images(images, labels)
    with open_runtime(
        artifact, runtime=runtime, threads=threads, signature=signature
    ) as opened:
        actual = predict(opened, images, max_pixel)
    expected = predict(keras_runtime(in_float32(model)), images)
    _check_outputs(actual, expected, labels)
    if features:
        found = compare_features(actual, expected)
    else:
        found = compare_classifiers(
            actual, expected, labels, activation_of_keras(model)
        )
    description = opened.description
    if isinstance(limits, Limits):
        bounds = limits
    else:
        bounds = dataclasses.replace(
            default_limits(description["quantization"]), **(limits or {})
        )
    custom = description["custom_operators"]
    return Report(
        artifact=os.fspath(artifact),
        runtime=opened.name,
        size=size_of(artifact),
        images=len(images),
        labeled=int(np.sum(labels >= 0)),
        limits=bounds,
        broken=bounds.broken_by(
            {**_findings(found), "custom_operators": custom}
        ),
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
            "Argument `images` must be pixels in [0, 255]. Received: values "
            f"from {images.min():g} to {images.max():g}"
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
            "The outputs of the artifact must have the model's shape, "
            f"{expected.shape} for these images. It may be from another model "
            "or from a part of the model, such as a feature extractor. "
            "Received: shape "
            f"{actual.shape}"
        )
    classes = num_classes(expected.shape[-1])
    if labels.max() >= classes:
        raise ValueError(
            f"Argument `labels` must be below {classes}, the number of the "
            f"model's classes. Received: {labels.max()}"
        )


def _difference(actual, expected):
    """Computes absolute differences, also relative to the largest output."""
    expected = np.asarray(expected, np.float64)
    distance = np.abs(np.asarray(actual, np.float64) - expected)
    scale = max(float(np.abs(expected).max()), 1e-30)
    largest, mean = float(distance.max()), float(distance.mean())
    return {
        "max": largest,
        "mean": mean,
        "max_relative": largest / scale,
        "mean_relative": mean / scale,
    }


def compare_classifiers(actual, expected, labels, activation="unknown"):
    """Compares the outputs of a file with its model's.

    Args:
        actual: The file's outputs, of shape (images, outputs).
        expected: The model's.
        labels: Integer array of shape (images,), the correct class of each
            image, or -1 if unknown.
        activation: The model's last activation, as for `probabilities`. If it
            is `"unknown"`, it is determined from `expected`.

    Returns:
        Dictionary of the `"differences"`, `"agreement"`, `"classes_seen"` and
        `"accuracy"` of a `Report`, and the two intervals.

    Raises:
        ValueError: If the activation is unknown, or as for `probabilities`.
    """
    activation = resolve_activation(activation, expected)
    ours = probabilities(expected, activation)
    theirs = probabilities(actual, activation)
    distance = _difference(theirs, ours)
    # Summed over classes, because the mean is small for many classes.
    distance["total_variation"] = distance["mean"] * ours.shape[-1] / 2
    logits = activation == "linear"
    best, other = ours.argmax(axis=-1), theirs.argmax(axis=-1)
    known = labels >= 0
    accuracy = loss_interval = None
    if known.any():
        right = [classes[known] == labels[known] for classes in (best, other)]
        accuracy = {
            "model": float(np.mean(right[0])),
            "artifact": float(np.mean(right[1])),
        }
        loss_interval = paired_interval(
            int(np.sum(right[0] & ~right[1])),
            int(np.sum(right[1] & ~right[0])),
            int(np.sum(known)),
        )
    same = best == other
    return {
        "differences": {
            "probabilities": distance,
            "logits": _difference(actual, expected) if logits else None,
        },
        "agreement": float(np.mean(same)),
        "agreement_interval": exact_interval(int(np.sum(same)), len(same)),
        "classes_seen": len(np.unique(best)),
        "accuracy": accuracy,
        "accuracy_loss_interval": loss_interval,
    }


def compare_features(actual, expected):
    """Compares features, like `compare_classifiers` for predictions."""
    return {
        "differences": {"features": _difference(actual, expected)},
        "agreement": None,
        "agreement_interval": None,
        "classes_seen": None,
        "accuracy": None,
        "accuracy_loss_interval": None,
    }


def _findings(found):
    """Returns the argument of `Limits.broken_by`, without operators."""
    ((quantity, distance), *_) = found["differences"].items()
    suffix = "_relative" if quantity == "features" else ""
    accuracy = found["accuracy"]
    intervals = {
        "agreement": found["agreement_interval"],
        "accuracy_loss": found["accuracy_loss_interval"],
    }
    return {
        "intervals": {k: v for k, v in intervals.items() if v},
        "agreement": found["agreement"],
        "max_difference": distance[f"max{suffix}"],
        "mean_difference": distance[f"mean{suffix}"],
        "total_variation": distance.get("total_variation"),
        "accuracy_loss": accuracy and accuracy["model"] - accuracy["artifact"],
    }
