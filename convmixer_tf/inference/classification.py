"""Classifying image files, some of which may be unreadable."""

import dataclasses

import numpy as np

from convmixer_tf.data import evaluation_batches
from convmixer_tf.data import open_files


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a classifier says about an image.

    Attributes:
        image: Path of the file.
        probabilities: Array of shape (classes,), or `None` if the file can't
            be read.
    """

    image: str
    probabilities: np.ndarray | None

    def best(self, top, class_names=None):
        """Names the best classes.

        Args:
            top: Integer, how many at most.
            class_names: Names of the classes, or `None`.

        Returns:
            List of tuples, best first: the class's name, or `"class 7"` for
            want of one, its number and its probability. Empty if the file
            can't be read.
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


def classify(classifier, paths, batch_size=64):
    """Classifies image files, which go through the evaluation transform.

    Args:
        classifier: A `Classifier`.
        paths: List of paths.
        batch_size: Integer, images at a time.

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
        scores = [None] * len(names)
        if readable.any():
            found = classifier.predict(images.numpy()[: len(names)][readable])
            for position, row in zip(
                np.flatnonzero(readable), found, strict=True
            ):
                scores[position] = row
        yield [Prediction(*pair) for pair in zip(names, scores, strict=True)]
