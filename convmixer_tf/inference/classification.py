"""Classifies image files, some of which may be unreadable."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from convmixer_tf.data import evaluation_batches
from convmixer_tf.data.samples import open_files
from convmixer_tf.data.unreadable import why_unreadable
from convmixer_tf.files import PathLike
from convmixer_tf.inference.classifiers import load_classifier

if TYPE_CHECKING:
    from convmixer_tf.inference.classifiers import Classifier

NOT_FINITE = (
    "not classified: the model's outputs are NaN or infinite. Its weights may "
    "be damaged. Use an earlier checkpoint, or train the model again."
)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A classifier's prediction for an image.

    Attributes:
        image: Path of the file.
        probabilities: Array of shape (classes,), or `None` if there is an
            error.
        error: Description of the error, or `None`.
    """

    image: str
    probabilities: np.ndarray | None
    error: str | None = None

    def best(self, top, class_names=None):
        """Returns the top classes.

        Args:
            top: Integer, the maximum number of classes.
            class_names: Names of the classes, or `None`.

        Returns:
            List of tuples, most probable class first: the name of the class
            (`"class 7"` if it has none), its index and its probability. The
            list is empty if there are no probabilities.
        """
        if self.probabilities is None:
            return []
        order = np.argsort(-self.probabilities, kind="stable")[:top]
        return [
            (
                class_names[index] if class_names else f"class {index}",
                int(index),
                float(self.probabilities[index]),
            )
            for index in order
        ]


def classify(
    classifier: Classifier, paths: Sequence[PathLike], batch_size: int = 64
) -> Iterator[list[Prediction]]:
    """Classifies image files after the evaluation transform.

    Args:
        classifier: A `Classifier`.
        paths: List of paths.
        batch_size: Integer, images per batch.

    Yields:
        A list of `Prediction`, in the order of `paths`, for each batch.

    Raises:
        ValueError: If `batch_size` is not a positive integer.
    """
    batches = evaluation_batches(
        open_files(paths),
        classifier.image_size,
        batch_size,
        crop_fraction=classifier.crop_fraction,
        skip_unreadable=True,
        orientation=classifier.orientation,
    )
    start = 0
    for images, _, weights in batches:
        names = paths[start : start + batch_size]
        start += batch_size
        readable = weights.numpy()[: len(names)] > 0
        found = ()
        if readable.any():
            found = classifier.predict(images.numpy()[: len(names)][readable])
        rows = iter(found)
        yield [
            judged(name, next(rows)) if seen else _unreadable(name)
            for name, seen in zip(names, readable, strict=True)
        ]


def predict_images(
    paths: Sequence[PathLike],
    model: PathLike = "256_8",
    *,
    batch_size: int = 64,
) -> list[Prediction]:
    """Classifies image files with any model that `load_classifier` loads.

    Args:
        paths: List of paths of image files.
        model: As for `load_classifier`: the name of a variant with published
            weights, or the path of a `.keras` or `.tflite` file, a SavedModel,
            a TF Hub module or a run folder.
        batch_size: Integer, images per batch.

    Returns:
        A list of `Prediction`, in the order of `paths`. A file that can't be
        read has an `error` and no probabilities.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If the model can't be read or is not a classifier, or if
            `batch_size` is not a positive integer.

    Example:

    ```python
    for prediction in convmixer_tf.predict_images(["photo.jpg"]):
        print(prediction.image, prediction.best(3))
    ```
    """
    classifier = load_classifier(model)
    batches = classify(
        classifier, [os.fspath(path) for path in paths], batch_size
    )
    return [prediction for batch in batches for prediction in batch]


def judged(image, probabilities):
    """Creates a `Prediction`, with an error if the probabilities have NaNs."""
    if np.isfinite(probabilities).all():
        return Prediction(image, probabilities)
    return Prediction(image, None, NOT_FINITE)


def _unreadable(image):
    why = why_unreadable(image)
    return Prediction(image, None, f"unreadable: {why[0].lower()}{why[1:]}")
