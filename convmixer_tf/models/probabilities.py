"""What a classifier's outputs mean: the one rule for probabilities.

Prediction, evaluation, verification, exported signatures and the server all
ask here. A classifier with a single output tells a class from its opposite:
its probabilities are two, those of class 0 (the opposite) and of class 1, as
in Keras' binary losses.
"""

import keras
import numpy as np
from keras import ops

# What activations make. After others, the outputs of probes decide.
_KINDS = {
    "softmax": "softmax",
    "sparsemax": "softmax",
    "sigmoid": "sigmoid",
    "hard_sigmoid": "sigmoid",
    "sparse_sigmoid": "sigmoid",
    "linear": "linear",
    "log_softmax": "linear",  # Softmax of it undoes the logarithm.
}
# Operations and layers without the attribute `activation`, by class.
_OPERATIONS = {
    "Softmax": "softmax",
    "Sparsemax": "softmax",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "sigmoid",
    "SparseSigmoid": "sigmoid",
    "LogSoftmax": "linear",
    # Without a classifier after it.
    "GlobalAveragePooling2D": None,
    "GlobalMaxPooling2D": None,
}
# What changes no number in inference.
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
    """Turns a classifier's outputs into probabilities.

    Args:
        outputs: Array of shape (images, outputs), of any float type.
        activation: What the classifier ends in: `"softmax"`, `"sigmoid"`,
            `"linear"`, or `"unknown"`, in which case an image's outputs are
            taken for probabilities if they are in [0, 1] and add up to 1, and
            otherwise for logits.

    Returns:
        float64 array of shape (images, classes). Logits go through softmax; a
        single one goes through sigmoid, and a single output becomes two
        classes: the opposite and the class. What is not finite stays so.

    Raises:
        ValueError: If there is one output, and it says nothing
            (`"softmax"`) or might be either (`"unknown"`).
    """
    outputs = np.asarray(outputs, np.float64)
    if outputs.shape[-1] == 1:
        check_single_output(activation)
        if activation == "sigmoid":
            return np.concatenate([1 - outputs, outputs], axis=-1)
        signs = np.array([-1.0, 1.0])
        return 0.5 * (1 + np.tanh(0.5 * signs * outputs))
    given = are_probabilities(outputs, activation)
    with np.errstate(invalid="ignore"):  # Infinite logits.
        shifted = np.exp(outputs - outputs.max(-1, keepdims=True))
    return np.where(
        given[:, None], outputs, shifted / shifted.sum(-1, keepdims=True)
    )


def graph_probabilities(outputs, activation):
    """Builds what `probabilities` computes, of tensors, into a graph.

    Args:
        outputs: Tensor of shape (images, outputs).
        activation: `"softmax"`, `"sigmoid"` or `"linear"`.

    Returns:
        Tensor of shape (images, classes).

    Raises:
        ValueError: As `probabilities`.
    """
    if outputs.shape[-1] == 1:
        check_single_output(activation)
        if activation == "sigmoid":
            return ops.concatenate([1 - outputs, outputs], axis=-1)
        return ops.sigmoid(ops.concatenate([-outputs, outputs], axis=-1))
    return ops.softmax(outputs) if activation == "linear" else outputs


def are_probabilities(outputs, activation="unknown"):
    """Tells which images' outputs are probabilities, and no logits.

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
    """Checks that a single output tells a class from its opposite.

    Raises:
        ValueError: If it can't, after softmax, or if it is not known whether
            it is a probability or a logit.
    """
    if activation == "softmax":
        raise ValueError(
            "A classifier with one output must not end in softmax, which "
            'makes 1 of any number. End it in `activation="sigmoid"`, or in '
            "two outputs, and train it again."
        )
    if activation == "unknown":
        raise ValueError(
            "It can't be told whether the classifier's one output is a "
            'probability or a logit. End the model in `activation="sigmoid"` '
            "or in a Dense layer without activation."
        )


def resolve_activation(activation, outputs):
    """Settles an activation that is not known by the outputs of images.

    Args:
        activation: As for `probabilities`.
        outputs: Array of shape (images, outputs), of at least some images
            that differ.

    Returns:
        `activation`; in place of `"unknown"`, `"softmax"` if all images'
        outputs are in [0, 1] and add up to 1, or `"linear"` if any is outside
        of [0, 1].

    Raises:
        ValueError: If the outputs might be either logits or probabilities
            that do not exclude each other, or as `check_single_output`.
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
        "It can't be told whether the classifier's outputs are probabilities "
        "or logits: all are in [0, 1], and they don't add up to 1. End the "
        "model in a softmax, in a sigmoid, or in a Dense layer without "
        "activation."
    )


def num_classes(outputs):
    """Gives the number of classes: a single output tells two apart."""
    return max(2, outputs)


def name_classes(class_names, outputs):
    """Names the classes of a classifier.

    Args:
        class_names: Names of the outputs or of the classes, or `None`.
        outputs: Integer, the number of outputs.

    Returns:
        Tuple of strings, or `None`. Of a single output whose class alone has
        a name, the opposite is called `"not NAME"`.

    Raises:
        ValueError: If there is another number of names than of classes.
    """
    if class_names is None:
        return None
    names = tuple(class_names)
    if outputs == 1 and len(names) == 1:
        names = (f"not {names[0]}", *names)
    if len(names) != num_classes(outputs):
        raise ValueError(
            f"The model has {num_classes(outputs)} classes, and there are "
            f"names for {len(names)}."
        )
    return names


def activation_of_keras(model):
    """Finds what a Keras model ends in.

    Args:
        model: A `keras.Model`.

    Returns:
        String, as `probabilities` takes it, or `None` if the model ends in
        pooling, and so has no classifier.
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
    """Gives what one of Keras' activations makes."""
    for name, kind in _KINDS.items():
        if function is not None and function is keras.activations.get(name):
            return kind
    return "unknown"


def _from_the_end(model):
    """Walks a model's operations from the last one back.

    With one output, those that pass it on alone come last.
    """
    # Those of a Functional model are not all layers.
    for operation in reversed(getattr(model, "operations", model.layers)):
        if isinstance(operation, keras.Model):
            yield from _from_the_end(operation)
        else:
            yield operation
