"""Converts a classifier's outputs to probabilities.

Prediction, evaluation, verification, exported signatures and the server all use
this module. A classifier with a single output is a binary classifier. It has
two probabilities, of class 0 (the negative class) and of class 1, as in Keras'
binary losses.
"""

import keras
import numpy as np
from keras import ops

# What each activation outputs. For others, the outputs of test images decide.
_KINDS = {
    "softmax": "softmax",
    "sparsemax": "softmax",
    "sigmoid": "sigmoid",
    "hard_sigmoid": "sigmoid",
    "sparse_sigmoid": "sigmoid",
    "linear": "linear",
    "log_softmax": "linear",  # A softmax undoes the logarithm.
}
# Operations and layers without an attribute `activation`, by class.
_OPERATIONS = {
    "Softmax": "softmax",
    "Sparsemax": "softmax",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "sigmoid",
    "SparseSigmoid": "sigmoid",
    "LogSoftmax": "linear",
    # The last layer of a model without classifier.
    "GlobalAveragePooling2D": None,
    "GlobalMaxPooling2D": None,
}
# Operations that change no number in inference.
_PASSED_ON = {
    "ActivityRegularization",
    "AlphaDropout",
    "Cast",
    "Dropout",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "InputLayer",
    "Reshape",
}


def probabilities(outputs, activation):
    """Converts a classifier's outputs to probabilities.

    Args:
        outputs: Array of shape (images, outputs), of any float type.
        activation: The classifier's activation: `"softmax"`, `"sigmoid"`,
            `"linear"` or `"unknown"`. With `"unknown"`, an image's outputs are
            treated as probabilities if they are in [0, 1] and add up to 1, and
            as logits otherwise.

    Returns:
        float64 array of shape (images, classes). Softmax is applied to logits,
        sigmoid to a single logit. A single output becomes two classes, the
        negative and the positive one. Values that are not finite stay so.

    Raises:
        ValueError: If there is one output and the activation is `"softmax"`,
            which makes it constant, or `"unknown"`.
    """
    outputs = np.asarray(outputs, np.float64)
    if outputs.shape[-1] == 1:
        check_single_output(activation)
        if activation == "sigmoid":
            return np.concatenate([1 - outputs, outputs], axis=-1)
        signs = np.array([-1.0, 1.0])
        return 0.5 * (1 + np.tanh(0.5 * signs * outputs))
    given = are_probabilities(outputs, activation)
    with np.errstate(invalid="ignore"):  # For infinite logits.
        shifted = np.exp(outputs - outputs.max(-1, keepdims=True))
    return np.where(
        given[:, None], outputs, shifted / shifted.sum(-1, keepdims=True)
    )


def graph_probabilities(outputs, activation):
    """Computes `probabilities` with tensors, in a graph.

    Args:
        outputs: Tensor of shape (images, outputs).
        activation: `"softmax"`, `"sigmoid"` or `"linear"`.

    Returns:
        Tensor of shape (images, classes).

    Raises:
        ValueError: As for `probabilities`.
    """
    if outputs.shape[-1] == 1:
        check_single_output(activation)
        if activation == "sigmoid":
            return ops.concatenate([1 - outputs, outputs], axis=-1)
        return ops.sigmoid(ops.concatenate([-outputs, outputs], axis=-1))
    return ops.softmax(outputs) if activation == "linear" else outputs


def are_probabilities(outputs, activation="unknown"):
    """Returns which images' outputs are probabilities rather than logits.

    Args:
        outputs: Array of shape (images, outputs).
        activation: As for `probabilities`.

    Returns:
        Boolean array of shape (images,).
    """
    if activation != "unknown":
        return np.full(len(outputs), activation in ("softmax", "sigmoid"))
    return (
        (outputs.min(-1) >= 0)
        & (outputs.max(-1) <= 1)
        & (np.abs(outputs.sum(-1) - 1) < 1e-3)
    )


def check_single_output(activation):
    """Checks that a single output can be a binary classifier's.

    Raises:
        ValueError: If it can't because of a softmax, or if it is unknown
            whether it is a probability or a logit.
    """
    if activation == "softmax":
        raise ValueError(
            "A classifier with one output must not end in softmax, which "
            'always outputs 1. Use `activation="sigmoid"` or two outputs, '
            "and train it again."
        )
    if activation == "unknown":
        raise ValueError(
            "Cannot determine whether the classifier's one output is a "
            "probability or a logit. End the model with "
            '`activation="sigmoid"` or with a Dense layer without activation.'
        )


def resolve_activation(activation, outputs):
    """Determines an unknown activation from the outputs of images.

    Args:
        activation: As for `probabilities`.
        outputs: Array of shape (images, outputs), for images that differ.

    Returns:
        `activation` if it is known. Otherwise `"softmax"` if all images'
        outputs are in [0, 1] and add up to 1, or `"linear"` if any output is
        outside of [0, 1].

    Raises:
        ValueError: If the outputs may be either logits or independent
            probabilities, or as for `check_single_output`.
    """
    outputs = np.asarray(outputs, np.float64)
    if outputs.shape[-1] == 1:
        check_single_output(activation)
    if activation != "unknown":
        return activation
    if are_probabilities(outputs).all():
        return "softmax"
    if outputs.min() < 0 or outputs.max() > 1:
        return "linear"
    raise ValueError(
        "Cannot determine whether the classifier's outputs are probabilities "
        "or logits: all are in [0, 1], and they don't add up to 1. End the "
        "model with a softmax, a sigmoid, or a Dense layer without "
        "activation."
    )


def num_classes(outputs):
    """Returns the number of classes: two for a single output."""
    return max(2, outputs)


def name_classes(class_names, outputs):
    """Names the classes of a classifier.

    Args:
        class_names: Names of the outputs or of the classes, or `None`.
        outputs: Integer, the number of outputs.

    Returns:
        Tuple of strings, or `None`. If there is a single output and one name,
        the negative class is called `"not NAME"`.

    Raises:
        ValueError: If the number of names is not the number of classes.
    """
    if class_names is None:
        return None
    names = tuple(class_names)
    if outputs == 1 and len(names) == 1:
        names = (f"not {names[0]}", *names)
    if len(names) != num_classes(outputs):
        raise ValueError(
            f"The model has {num_classes(outputs)} classes, but there are "
            f"{len(names)} class names."
        )
    return names


def activation_of_keras(model):
    """Finds the activation of a Keras classifier.

    Args:
        model: A `keras.Model`.

    Returns:
        String, as for `probabilities`, or `None` if the model ends in pooling
        and so has no classifier.
    """
    for operation in _from_the_end(model):
        name = type(operation).__name__
        if name in _OPERATIONS:
            return _OPERATIONS[name]
        function = getattr(operation, "activation", None)
        kind = _kind(function)
        if name in _PASSED_ON or (name == "Activation" and kind == "linear"):
            continue
        return kind
    return "unknown"


def _kind(function):
    """Returns what a Keras activation outputs."""
    for name, kind in _KINDS.items():
        if function is not None and function is keras.activations.get(name):
            return kind
    return "unknown"


def _from_the_end(model):
    """Yields a model's operations, the last one first.

    For one output, it stops where the path branches.
    """
    # The operations of a Functional model are not all layers.
    for operation in reversed(getattr(model, "operations", model.layers)):
        if isinstance(operation, keras.Model):
            yield from _from_the_end(operation)
        else:
            yield operation
