"""Checks and conversions of Keras models for all export formats."""

import keras

from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.models.copying import copy_weights
from convmixer_tf.models.copying import is_merged
from convmixer_tf.models.structure import check_pixels
from convmixer_tf.models.structure import leaf_layers

# Entries of a layer's config about quantization and LoRA.
_MERGED = (
    "gptq_unpacked_column_size",
    "lora_alpha",
    "lora_rank",
    "quantization_config",
    "quantization_mode",
)


def check_backend(what):
    """Checks that Keras uses the TensorFlow backend.

    Args:
        what: String, the name of the format, in the plural.

    Raises:
        ValueError: If Keras uses another backend.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{what} can only be exported with Keras' TensorFlow backend. Save "
            "the model as `.keras`, and export it in a process with "
            f"KERAS_BACKEND=tensorflow. Received: {keras.backend.backend()}"
        )


def check_image_model(model):
    """Checks that a model maps a batch of images to one tensor.

    Args:
        model: The user's argument.

    Raises:
        ValueError: If it doesn't, if it is channels-first, or if it is a
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
            "The model must be channels-last. Build it again after "
            '`keras.config.set_image_data_format("channels_last")`; the '
            "weights are the same. "
            f"Received: a channels_first model, input_shape={shape}"
        )
    check_pixels(model)


def check_convmixer(model):
    """Checks that a model contains ConvMixer blocks, also in nested models.

    Args:
        model: A `keras.Model`.

    Raises:
    ValueError: If it has no ConvMixer blocks.
    """
    if not is_convmixer(model):
        raise ValueError(
            "Argument `model` must be or contain a ConvMixer. To export "
            "another classifier as a TFLite or ONNX file, specify its pixel "
            "range with `with_pixel_range` (`--pixel_range`). Received: "
            f"{model!r}, without a ConvMixerBlock"
        )


def is_convmixer(model):
    """Returns whether a model contains ConvMixer blocks or is deployed.

    Args:
        model: A `keras.Model`, possibly from `deploy`.
    """
    return hasattr(model, "deployment") or any(
        isinstance(layer, ConvMixerBlock) for layer in leaf_layers(model)
    )


def classifier_of(model):
    """Returns the last layer of a classifier.

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
    """Rebuilds a model in float32 with changed layer configs.

    Args:
        model: A functional or sequential `keras.Model`.
        change: Function from a layer to a dictionary of changes to its config,
            or to a layer without weights that replaces it.

    Returns:
        A new `keras.Model` with the effective weights of `model`: quantized
        weights and LoRA updates are merged.
    """

    def rebuild(layer):
        if isinstance(layer, keras.Model):
            return rebuilt(layer, change)
        changes = change(layer)
        if isinstance(changes, keras.layers.Layer):
            return changes
        config = layer.get_config()
        if "activation" in config:
            # The function itself, because Keras may not find it by name.
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
    """Returns a model that computes in float32.

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
