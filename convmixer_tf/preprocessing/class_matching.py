"""Which output of a model is which class of the data."""

from collections.abc import Sequence

import numpy as np

from convmixer_tf.preprocessing.imagenet import imagenet_classes


def match_classes(
    data_names: Sequence[str], model_names: Sequence[str] | None, count: int
) -> np.ndarray:
    """Finds the model's output for each class of the data.

    Args:
        data_names: Names of the data's classes.
        model_names: Names of the model's classes, or `None` if unknown. A
            model of 1000 classes is taken for ImageNet's if it doesn't know
            the data's, and these are WordNet's identifiers.
        count: Integer, how many outputs the model has.

    Returns:
        Integer array, an output for each class of the data.

    Raises:
        ValueError: If a class is not one of the model's, or might be several.
    """
    if count == 1000 and not set(data_names) <= set(model_names or ()):
        identifiers = [c.wnid for c in imagenet_classes()]
        if set(data_names) <= set(identifiers):
            model_names = identifiers
    if model_names is None:
        if len(data_names) != count:
            raise ValueError(
                f"The model has {count} classes and the data have "
                f"{len(data_names)}, and nothing says which is which."
            )
        return np.arange(count)
    if list(data_names) == list(model_names):
        return np.arange(len(data_names))
    twice = {x for x in data_names if list(model_names).count(x) > 1}
    if twice:
        raise ValueError(
            "The model has several classes of the name "
            f"{', '.join(sorted(twice))}, and nothing says which is the data's."
        )
    missing = sorted(set(data_names) - set(model_names))
    if missing:
        raise ValueError(
            f"The model does not know the classes {', '.join(missing[:5])} of "
            f"the data. It knows {', '.join(model_names[:5])} ..."
        )
    return np.array([list(model_names).index(name) for name in data_names])
