"""Matches the outputs of a model with the classes of the data."""

from collections.abc import Sequence

import numpy as np

from convmixer_tf.preprocessing.imagenet import imagenet_classes


def match_classes(
    data_names: Sequence[str], model_names: Sequence[str] | None, count: int
) -> np.ndarray:
    """Finds the model output for each class of the data.

    Args:
        data_names: Names of the data's classes.
        model_names: Names of the model's classes, or `None` if unknown. A model
            with 1000 classes is treated as an ImageNet model if it doesn't know
            the data's classes and these are WordNet identifiers.
        count: Integer, the number of outputs of the model.

    Returns:
        Integer array, the index of an output for each class of the data.

    Raises:
        ValueError: If a class matches none of the model's, or several.
    """
    if count == 1000 and not set(data_names) <= set(model_names or ()):
        identifiers = [c.wnid for c in imagenet_classes()]
        if set(data_names) <= set(identifiers):
            model_names = identifiers
    if model_names is None:
        if len(data_names) != count:
            raise ValueError(
                f"The model has {count} classes and the data has "
                f"{len(data_names)}. They cannot be matched because the model "
                "has no class names."
            )
        return np.arange(count)
    if list(data_names) == list(model_names):
        return np.arange(len(data_names))
    twice = {x for x in data_names if list(model_names).count(x) > 1}
    if twice:
        raise ValueError(
            f"The model has several classes named {', '.join(sorted(twice))}, "
            "so they cannot be matched with the data's."
        )
    missing = sorted(set(data_names) - set(model_names))
    if missing:
        raise ValueError(
            f"The model does not know the classes {', '.join(missing[:5])} of "
            f"the data. It knows {', '.join(model_names[:5])} ..."
        )
    return np.array([list(model_names).index(name) for name in data_names])
