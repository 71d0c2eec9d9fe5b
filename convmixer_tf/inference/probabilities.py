"""What a classifier's outputs say, which depends on how it ends."""

import keras
import numpy as np

# What computes nothing, in the graphs of SavedModels.
_PASSED_ON = {"Cast", "Identity", "Reshape"}
_ACTIVATIONS = {
    "LOGISTIC": "sigmoid",
    "SOFTMAX": "softmax",
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
    "MatMul": "linear",
    "BiasAdd": "linear",
    "FULLY_CONNECTED": "linear",
    # Pooling: there is no classifier.
    "MEAN": None,
    "Mean": None,
    "Max": None,
    "REDUCE_MAX": None,
}


def probabilities(outputs, activation):
    """Turns a classifier's outputs into probabilities.

    Args:
        outputs: Array of shape (images, classes).
        activation: What the classifier ends in: `"softmax"`, `"sigmoid"`,
            `"linear"`, or `"unknown"`, in which case an image's outputs are
            taken for probabilities if they are in [0, 1] and add up to 1, and
            otherwise for logits.

    Returns:
        float64 array of the same shape. Logits go through softmax.
    """
    outputs = np.asarray(outputs, np.float64)
    if activation in ("softmax", "sigmoid"):
        return outputs
    shifted = np.exp(outputs - outputs.max(-1, keepdims=True))
    found = shifted / shifted.sum(-1, keepdims=True)
    if activation == "linear":
        return found
    given = (
        (outputs.min(-1) >= 0)
        & (outputs.max(-1) <= 1)
        & (np.abs(outputs.sum(-1) - 1) < 1e-3)
    )
    return np.where(given[:, None], outputs, found)


def activation_of_keras(model):
    """Finds what a Keras model ends in.

    Args:
        model: A `keras.Model`.

    Returns:
        String, as `probabilities` takes it, or `None` if the model ends in
        pooling, and so has no classifier.
    """
    layer = model
    while isinstance(layer, keras.Model):
        layer = layer.layers[-1]
    pooling = (
        keras.layers.GlobalAveragePooling2D,
        keras.layers.GlobalMaxPooling2D,
    )
    if isinstance(layer, pooling):
        return None
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    for name in ("linear", "sigmoid", "softmax"):
        if getattr(layer, "activation", None) is keras.activations.get(name):
            return name
    return "unknown"


def activation_of_tflite(path):
    """Finds what a TFLite file ends in, like `activation_of_keras`."""
    # Not above: only these files need LiteRT.
    from convmixer_tf.export.tflite_model import last_operators
    from convmixer_tf.export.tflite_model import unpack

    # Several if there are activation maps.
    names = last_operators(unpack(path.read_bytes()))
    return min(
        (_ACTIVATIONS.get(name, "unknown") for name in names),
        key=("softmax", "sigmoid", "linear", "unknown", None).index,
    )


def activation_of_saved_model(signature, output):
    """Finds what a SavedModel ends in, like `activation_of_keras`.

    Args:
        signature: A signature of a loaded SavedModel.
        output: Name of its output.
    """
    graph = signature.graph.as_graph_def()
    functions = {x.signature.name: x for x in graph.library.function}
    nodes = {node.name: node for node in graph.node}
    outputs = sorted(signature.structured_outputs)  # As TensorFlow flattens.
    name = signature.outputs[outputs.index(output)].name
    while True:
        name, *rest = name.split(":")  # node, node:0 or node:output:0
        if name not in nodes:  # The input.
            return "unknown"
        node, index = nodes[name], rest[-1] if rest else 0
        called = functions.get(node.attr["f"].func.name)
        if called:
            nodes = {x.name: x for x in called.node_def}
            name = called.ret[called.signature.output_arg[int(index)].name]
        elif node.op in _PASSED_ON:
            name = node.input[0]
        else:
            return _ACTIVATIONS.get(node.op, "unknown")
