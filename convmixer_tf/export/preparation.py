"""What every exported format asks of a Keras model."""

import keras

from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.layers import PatchEmbed


def check_backend(what):
    """Checks that Keras runs on TensorFlow.

    Args:
        what: String, what is to be exported, in the plural.

    Raises:
        ValueError: If it runs on another backend.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{what} are exported from Keras' TensorFlow backend. Save "
            "the model as `.keras`, and export it in a process with "
            f"KERAS_BACKEND=tensorflow. Received: {keras.backend.backend()}"
        )


def check_image_model(model):
    """Checks that a model maps a batch of pixels to one tensor.

    Args:
        model: What the user gave.

    Raises:
        ValueError: If it doesn't, if its channels come first, or if it is a
            ConvMixer that does not normalise its input.
    """
    shape = getattr(model, "input_shape", None)
    if (
        not isinstance(model, keras.Model)
        or not isinstance(shape, tuple)
        or len(shape) != 4
        or not isinstance(model.output_shape, tuple)
    ):
        raise ValueError(
            "Argument `model` must be a `keras.Model` with one input, (batch, "
            "height, width, channels), and one output, such as `ConvMixer`. "
            f"Received: {model!r}, input_shape={shape}"
        )
    if any(
        getattr(layer, "data_format", None) == "channels_first"
        for layer in model.layers
    ):
        raise ValueError(
            "The model must take its channels last. Build it again after "
            '`keras.config.set_image_data_format("channels_last")`; the '
            "weights are the same. "
            f"Received: a channels_first model, input_shape={shape}"
        )
    check_pixels(model)


def check_pixels(model):
    """Checks that a ConvMixer takes pixels as they are.

    Args:
        model: A `keras.Model`, be it what `deploy` returned.

    Raises:
        ValueError: If it does not normalise its input.
    """
    deployment = getattr(model, "deployment", None)
    if isinstance(_first_layer(model), PatchEmbed) or (
        deployment and not deployment.preprocessing_folded
    ):
        raise ValueError(
            "The model must take pixels in [0, 255]. Build it again with "
            "include_preprocessing=True; the weights are the same. "
            f"Received: {model!r}, which normalises nothing"
        )


def check_convmixer(model):
    """Checks that a model has the blocks of a ConvMixer, at whatever depth.

    Args:
        model: A `keras.Model`.

    Raises:
        ValueError: If it has none.
    """
    if not any(isinstance(layer, ConvMixerBlock) for layer in _layers(model)):
        raise ValueError(
            "Argument `model` must be a ConvMixer, or have one in it. "
            f"Received: {model!r}, without a ConvMixerBlock"
        )


def _first_layer(model):
    for layer in _layers(model):
        if not isinstance(layer, keras.layers.InputLayer):
            return layer
    return None


def _layers(model):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def classifier_of(model):
    """Finds the layer that ends a classifier.

    Args:
        model: A `keras.Model` with one output.

    Returns:
        A layer with the attribute `activation`, or `None` if the model does
        not end in a classifier.
    """
    layer = model
    while isinstance(layer, keras.Model):
        layer = layer.layers[-1]
    ends = isinstance(layer, keras.layers.Dense | keras.layers.Activation)
    return layer if ends and len(model.output_shape) == 2 else None


def rebuilt(model, change):
    """Rebuilds a model from changed configurations, with the same weights.

    Args:
        model: A functional or sequential `keras.Model`.
        change: Function from a layer to a dictionary of what to change in its
            configuration.

    Returns:
        Another `keras.Model`.
    """

    def rebuild(layer):
        if isinstance(layer, keras.Model):
            return rebuilt(layer, change)
        config = layer.get_config()
        if "activation" in config:
            # The function itself, as it may be one that Keras can't find.
            config["activation"] = layer.activation
        return type(layer).from_config({**config, **change(layer)})

    twin = keras.models.clone_model(model, clone_function=rebuild)
    twin.set_weights(model.get_weights())
    return twin


def in_float32(model):
    """Gives a model that computes in float32, for runtimes that need it.

    Args:
        model: A functional or sequential `keras.Model`.

    Returns:
        The model itself if it computes in float32, otherwise a copy.
    """
    if {layer.compute_dtype for layer in _layers(model)} == {"float32"}:
        return model
    return rebuilt(model, lambda layer: {"dtype": "float32"})
