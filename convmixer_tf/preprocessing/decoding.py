"""Converts a classifier's outputs to the names of the top classes."""

import numbers
from collections.abc import Sequence

import numpy as np
from keras import ops

from convmixer_tf.preprocessing.cifar10 import CIFAR10_CLASSES
from convmixer_tf.preprocessing.imagenet import imagenet_classes


def class_names(dataset: str) -> tuple[str, ...]:
    """Lists the classes of published weights, in the order of the outputs.

    Args:
        dataset: `"imagenet"` or `"cifar10"`, as in the argument `weights` of
            the models.

    Returns:
        Tuple of strings, one name for each output.

    Raises:
        ValueError: If the data set is neither of the two.
    """
    if dataset == "imagenet":
        return tuple(c.name for c in imagenet_classes())
    if dataset == "cifar10":
        return CIFAR10_CLASSES
    raise ValueError(
        'Argument `dataset` must be "imagenet" or "cifar10". '
        f"Received: dataset={dataset!r}"
    )


def decode_predictions(
    preds: np.ndarray, top: int = 5, class_names: Sequence[str] | None = None
) -> list[list[tuple]]:
    """Names the top classes of each prediction.

    Args:
        preds: Array or tensor of shape (batch, classes), the output of a
            classifier. Without `class_names`, the shape must be (batch, 1000).
        top: Integer from 1 to the number of classes, the number of classes to
            return per image.
        class_names: Names of the classes in the order of the outputs, such as
            `preprocessing.CIFAR10_CLASSES`. Defaults to ImageNet's.

    Returns:
        One list per image, top class first. It holds `(wnid, name, score)`
        tuples for ImageNet, as in `keras.applications`, and `(name, score)`
        tuples if `class_names` is given. Nothing is downloaded.

    Raises:
        ValueError: If `preds` has another shape or `top` is out of range.

    Example:
    ```python
    preds = np.eye(1000)[:1]
    decode_predictions(preds, top=1)  # [[("n01440764", "tench", 1.0)]]
    ```
    """
    if class_names is None:
        what = "1000 ImageNet"
        classes: Sequence[tuple] = imagenet_classes()
    else:
        what, classes = f"{len(class_names)}", [(x,) for x in class_names]
    shape = tuple(np.shape(preds))
    if len(shape) != 2 or shape[1] != len(classes):
        raise ValueError(
            f"Argument `preds` must be a batch of predictions for the {what} "
            f"classes, of shape (batch, {len(classes)}). For other classes, "
            f"pass their names as `class_names`. Received: shape={shape}"
        )
    if not isinstance(top, numbers.Integral) or not 1 <= top <= len(classes):
        raise ValueError(
            f"Argument `top` must be an integer from 1 to {len(classes)}. "
            f"Received: top={top}"
        )
    preds = ops.convert_to_numpy(preds)
    # In float64, because an integer type's smallest value has no negative.
    best = np.argsort(-np.float64(preds), axis=1, kind="stable")[:, :top]
    return [
        [(*classes[index], scores[index]) for index in indices]
        for indices, scores in zip(best, preds, strict=True)
    ]
