"""Keras models from what a user may name: a file, weights, a variant."""

import os

import convmixer_tf
from convmixer_tf import data
from convmixer_tf import preprocessing
from convmixer_tf import weights as weight_files
from convmixer_tf.models import VARIANTS
from convmixer_tf.models import find_model
from convmixer_tf.models import load_model
from convmixer_tf.models import read_class_names
from convmixer_tf.models import read_crop_fraction
from convmixer_tf.models import read_orientation
from convmixer_tf.weights import PUBLISHED_WEIGHTS


def load(name, size, *, weights=None, activation=None):
    """Loads a model.

    Args:
        name: Path of a `.keras` file, of the folder of a run or of a file of
            weights, or one of `models.VARIANTS`.
        size: Side of the images, in pixels, of a model that doesn't say it;
            `None` for any.
        weights: Of a variant, as in `ConvMixer768_32`. Defaults to its own.
        activation: Of a file of weights. Defaults to that of the published
            variant of the same architecture.

    Returns:
        A `keras.Model`, the names of its classes, the part of an image's side
        that it is evaluated on, and the orientation of its images; `None`
        where that isn't known.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no model, or its activation isn't known.
    """
    if name in VARIANTS:
        facts = PUBLISHED_WEIGHTS[f"convmixer_{name}"]
        model = VARIANTS[name](
            weights=weights or facts.dataset, input_shape=(size, size, 3)
        )
        names = preprocessing.class_names(facts.dataset)
        return model, names, facts.crop_fraction, data.ORIENTATION
    name = find_model(name)
    if not os.path.isfile(name):
        raise FileNotFoundError(
            "The model must be a .keras file, the folder of a run or a file of "
            f"weights that is there, or one of {', '.join(VARIANTS)}. "
            f"Received: {name!r}"
        )
    if not name.endswith(".keras"):
        return _from_weights(name, size, activation), None, None, None
    return (
        load_model(name),
        read_class_names(name),
        read_crop_fraction(name),
        read_orientation(name),
    )


def _from_weights(path, size, activation):
    found = weight_files.infer_architecture(weight_files.read_weights(path))
    shape = (found.dim, found.depth, found.kernel_size, found.patch_size)
    activation = activation or _published_activation(shape)
    if activation is None:
        raise ValueError(
            f"`{path}` does not tell the activation of its ConvMixer, and the "
            "architecture is none of the published. Pass --activation, such "
            "as gelu or relu."
        )
    top = found.classes is not None
    return convmixer_tf.ConvMixer(
        *shape,
        activation,
        include_top=top,
        weights=path,
        input_shape=(size, size, found.channels),
        pooling=None if top else "avg",
        classes=found.classes or 1,
    )


def _published_activation(shape):
    for facts in PUBLISHED_WEIGHTS.values():
        known = (facts.dim, facts.depth, facts.kernel_size, facts.patch_size)
        if known == shape:
            return facts.activation
    return None
