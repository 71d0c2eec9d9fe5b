"""What every exported format asks of a Keras model."""

import keras

from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.models.copying import copy_weights
from convmixer_tf.models.copying import is_merged
from convmixer_tf.models.structure import check_pixels
from convmixer_tf.models.structure import leaf_layers

# What a layer's configuration says about quantization and LoRA.
_MERGED = (
    "gptq_unpacked_column_size",
    "lora_alpha",
    "lora_rank",
    "quantization_config",
    "quantization_mode",
)


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
            ConvMixer that does not normalize its input.
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
        for layer in leaf_layers(model)
    ):
        raise ValueError(
            "The model must take its channels last. Build it again after "
            '`keras.config.set_image_data_format("channels_last")`; the '
            "weights are the same. "
            f"Received: a channels_first model, input_shape={shape}"
        )
    check_pixels(model)


def check_convmixer(model):
    """Checks that a model has the blocks of a ConvMixer, at whatever depth.

    Args:
        model: A `keras.Model`.

    Raises:
        ValueError: If it has none.
    """
    if not is_convmixer(model):
        raise ValueError(
            "Argument `model` must be a ConvMixer, or have one in it. To "
            "export another classifier as TFLite or ONNX file, state the "
            "pixels that it takes: `with_pixel_range`, in commands "
            f"--pixel_range. Received: {model!r}, without a ConvMixerBlock"
        )


def is_convmixer(model):
    """Whether a model has the blocks of a ConvMixer, or was made of one.

    Args:
        model: A `keras.Model`, be it what `deploy` returned.
    """
    return hasattr(model, "deployment") or any(
        isinstance(layer, ConvMixerBlock) for layer in leaf_layers(model)
    )


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
    """Rebuilds a model in float32 from changed configurations.

    Args:
        model: A functional or sequential `keras.Model`.
        change: Function from a layer to a dictionary of what to change in its
            configuration, or to a layer without weights in its place.

    Returns:
        Another `keras.Model`, with the weights that `model` computes with:
        those of quantized layers and of layers with LoRA are merged.
    """

    def rebuild(layer):
        if isinstance(layer, keras.Model):
            return rebuilt(layer, change)
        changes = change(layer)
        if isinstance(changes, keras.layers.Layer):
            return changes
        config = layer.get_config()
        if "activation" in config:
            # The function itself, as it may be one that Keras can't find.
            config["activation"] = layer.activation
        config = {k: v for k, v in config.items() if k not in _MERGED}
        if isinstance(layer, keras.layers.Layer):
            config["dtype"] = "float32"
        config |= changes
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=rebuild)
    copy_weights(model, copy)
    return copy


def in_float32(model):
    """Gives a model that computes in float32, for runtimes that need it.

    Args:
        model: A functional or sequential `keras.Model`.

    Returns:
        The model itself if it computes in float32 and none of its layers is
        quantized or has LoRA, otherwise a copy.
    """
    dtypes = {layer.compute_dtype for layer in leaf_layers(model)}
    if dtypes == {"float32"} and is_merged(model):
        return model
    return rebuilt(model, lambda layer: {})
