"""From a classifier's outputs to the names of the best classes."""

import numbers
from collections.abc import Sequence

import numpy as np
from keras import ops

from convmixer_tf.preprocessing.cifar10 import CIFAR10_CLASSES
from convmixer_tf.preprocessing.imagenet import imagenet_classes


def class_names(dataset: str) -> tuple[str, ...]:
    """Lists the classes that published weights know, in their order.

    Args:
        dataset: `"imagenet"` or `"cifar10"`, as in the argument `weights` of
            the models.

    Returns:
        Tuple of strings, a name for each output.

    Raises:
        ValueError: If the data set is another one.
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
    """Names the best classes of each prediction.

    Args:
        preds: Array or tensor of shape (batch, classes): what a classifier
            returns; of shape (batch, 1000) without `class_names`.
        top: Integer from 1 to the number of classes, how many to name per
            image.
        class_names: Names of the classes in the order of the outputs, such as
            `preprocessing.CIFAR10_CLASSES`. Defaults to ImageNet's.

    Returns:
        One list per image, best class first: of `(wnid, name, score)` tuples
        for ImageNet, as in `keras.applications`, of `(name, score)` tuples
        if there are `class_names`. Nothing is downloaded.

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
            f"Argument `preds` must be a batch of predictions over the {what} "
            f"classes, of shape (batch, {len(classes)}); for other classes "
            f"pass their names as `class_names`. Received: shape={shape}"
        )
    if not isinstance(top, numbers.Integral) or not 1 <= top <= len(classes):
        raise ValueError(
            f"Argument `top` must be an integer from 1 to {len(classes)}. "
            f"Received: top={top}"
        )
    preds = ops.convert_to_numpy(preds)
    # In float64: the smallest integer of a type has no negative in it.
    best = np.argsort(-np.float64(preds), axis=1, kind="stable")[:, :top]
    return [
        [(*classes[index], scores[index]) for index in indices]
        for indices, scores in zip(best, preds, strict=True)
    ]
