"""Rebuilds the deployed model in Keras 2.

In the worker's process only.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tf_keras

# Relative to the largest output. Reordering float32 sums changes less.
MAX_DIFFERENCE = 1e-4


@dataclasses.dataclass(frozen=True)
class LegacyModel:
    """A Keras 2 model with the deployed model's weights.

    Attributes:
        model: A `tf_keras.Model` from pixels to logits.
        variables: Dictionary from layers' names to lists of their variables.
            A wrapped layer hides some of them.
        activation: Function from logits to the deployed model's outputs.
    """

    model: tf_keras.Model
    variables: dict
    activation: Callable

    def weights(self):
        """Returns a dictionary from layers' names to lists of arrays."""
        return {
            name: [variable.numpy() for variable in variables]
            for name, variables in self.variables.items()
        }


def build_legacy_model(nodes, weights, wrap=lambda node, layer: layer):
    """Builds the Keras 2 form of a model that `graph.describe` described.

    Its first convolution, which takes the pixels, is not trained.

    Args:
        nodes: Layers from `graph.describe`.
        weights: Dictionary from layers' names to lists of arrays.
        wrap: Function of a node and its layer, with its weights, that returns
            the layer to call instead.

    Returns:
        A `LegacyModel`.
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
            # The stem takes pixels. Its weights are 60 times smaller than other
            # weights, so Adam's updates, which all have the same size, would
            # destroy them.
            layer.trainable = not name.startswith("patch_embed")
        tensors[name] = wrap(node, layer)(x)
    model = tf_keras.Model(tensors[first["name"]], tensors[name])
    return LegacyModel(model, variables, activation)


def check_outputs(legacy, images, expected):
    """Checks that the Keras 2 model equals the deployed model.

    Args:
        legacy: A `LegacyModel` without wrappers.
        images: uint8 array of pixels.
        expected: The deployed model's outputs.

    Returns:
        Maximum difference, relative to the largest output.

    Raises:
        ValueError: If the difference is above `MAX_DIFFERENCE`.
    """
    logits = legacy.model(np.float32(images), training=False)
    actual = np.asarray(legacy.activation(logits))
    difference = np.abs(actual - expected).max() / np.abs(expected).max()
    if not difference <= MAX_DIFFERENCE:
        raise ValueError(
            "The outputs of the model rebuilt in Keras 2 must equal the "
            f"model's. Expected a difference of at most {MAX_DIFFERENCE:g}, "
            f"relative to the largest output. Received: {difference:.3g}"
        )
    return float(difference)
