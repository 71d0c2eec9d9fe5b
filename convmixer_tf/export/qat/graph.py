"""Describes a deployed model as a list of layers for Keras 2."""

import keras

# Arguments that Keras 2 has for the layers that `deploy` uses.
_CONVOLUTION = (
    "kernel_size",
    "strides",
    "padding",
    "dilation_rate",
    "data_format",
    "use_bias",
)
_ARGUMENTS = {
    "Activation": ("activation",),
    "Add": (),
    "Concatenate": (),
    "Conv2D": ("filters", *_CONVOLUTION),
    "Dense": ("units", "activation", "use_bias"),
    "DepthwiseConv2D": _CONVOLUTION,
    "GlobalAveragePooling2D": ("data_format",),
    "ZeroPadding2D": ("padding", "data_format"),
}


def describe(model):
    """Lists a deployed model's layers in topological order.

    Args:
        model: A classifier from `deploy`.

    Returns:
        List of dictionaries, ready for JSON: `"name"`; `"kind"`, the name of
        the class; `"arguments"` of the class; `"inputs"`, names of layers.
        The argument of the first layer is the shape of an image.

    Raises:
        ValueError: If Keras does not know an activation by name.
    """
    producers = {id(layer.output): layer.name for layer in model.layers}
    nodes = []
    for layer in model.layers:
        kind = type(layer).__name__
        if kind == "InputLayer":
            arguments, inputs = {"shape": model.input_shape[1:]}, []
        else:
            config = layer.get_config()
            arguments = {name: config[name] for name in _ARGUMENTS[kind]}
            inputs = layer.input
            inputs = inputs if isinstance(inputs, list) else [inputs]
        if not isinstance(arguments.get("activation", ""), str):
            raise ValueError(
                "Keras must know the model's activation by name, such as gelu "
                "or relu, because the model is rebuilt in Keras 2. Received: "
                f"{arguments['activation']!r}"
            )
        nodes.append(
            {
                "name": layer.name,
                "kind": kind,
                "arguments": arguments,
                "inputs": [producers[id(x)] for x in inputs],
            }
        )
    return nodes


def weights_of(model):
    """Returns a dictionary from layer names to lists of weights."""
    return {
        layer.name: [keras.ops.convert_to_numpy(w) for w in layer.weights]
        for layer in model.layers
        if layer.weights
    }
