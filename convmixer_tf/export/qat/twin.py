"""The deployed model once more, in Keras 2.

In the worker's process only.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tf_keras

# Relative to the largest output: float32 sums in another order.
PARITY = 1e-4


@dataclasses.dataclass(frozen=True)
class Twin:
    """A Keras 2 model with the deployed one's weights.

    Attributes:
        model: A `tf_keras.Model` from pixels to logits.
        variables: Dictionary from layers' names to lists of their variables.
            A layer that is wrapped hides some of them.
        activation: Function from logits to the deployed model's outputs.
    """

    model: tf_keras.Model
    variables: dict
    activation: Callable


def build_twin(nodes, weights, wrap=lambda node, layer: layer):
    """Builds the twin of a model that `graph.describe` described.

    Its first convolution, which takes the pixels, is not trained.

    Args:
        nodes: What `graph.describe` returns.
        weights: Dictionary from layers' names to lists of arrays.
        wrap: Function of a node and its layer, which has its weights, that
            returns what is to be called in its place.

    Returns:
        A `Twin`.
    """
    first, *others = nodes
    tensors = {first["name"]: tf_keras.Input(first["arguments"]["shape"])}
    variables = {}
    for node in others:
        name, arguments = node["name"], dict(node["arguments"])
        if node["kind"] == "Dense":
            activation = tf_keras.activations.get(arguments.pop("activation"))
        layer = getattr(tf_keras.layers, node["kind"])(**arguments, name=name)
        inputs = [tensors[source] for source in node["inputs"]]
        x = inputs if len(inputs) > 1 else inputs[0]
        if name in weights:
            layer.build(x.shape)
            layer.set_weights(weights[name])
            variables[name] = list(layer.weights)
            # It takes pixels: its weights are 60 times smaller than others',
            # and updates of the same size would ruin it. It is not rounded.
            layer.trainable = not name.startswith("patch_embed")
        tensors[name] = wrap(node, layer)(x)
    model = tf_keras.Model(tensors[first["name"]], tensors[name])
    return Twin(model, variables, activation)


def check_parity(twin, images, expected):
    """Checks that the twin computes what the deployed model does.

    Args:
        twin: A `Twin` without wrappers.
        images: uint8 array of pixels.
        expected: The deployed model's outputs.

    Returns:
        The largest difference, relative to the largest output.

    Raises:
        ValueError: If that is above `PARITY`.
    """
    logits = twin.model(np.float32(images), training=False)
    actual = np.asarray(twin.activation(logits))
    difference = np.abs(actual - expected).max() / np.abs(expected).max()
    if not difference <= PARITY:
        raise ValueError(
            "The Keras 2 twin must compute what the model does. It is "
            f"{difference:.3g} off, relative to the largest output; at most "
            f"{PARITY:g} would be rounding."
        )
    return float(difference)
