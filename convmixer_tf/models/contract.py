"""What `keras.applications` promises about arguments, checked up front."""

import os

import keras

from convmixer_tf.layers.validation import check_positive_integer
from convmixer_tf.layers.validation import check_rate


def image_shape(input_shape, input_tensor, include_top):
    """Settles the shape of the images a model takes.

    Args:
        input_shape: What the user gave: a tuple of three, or `None`.
        input_tensor: What the user gave: a symbolic tensor, or `None`.
        include_top: Boolean, whether the model classifies. If so, the default
            size is 224 x 224, otherwise it is left open.

    Returns:
        A tuple of three, with `None` for a height or width left open, in the
        order of `keras.config.image_data_format()`.

    Raises:
        ValueError: If `input_tensor` is not symbolic, or if the two shapes
            differ.
    """
    if input_tensor is None:
        if input_shape is not None:
            return tuple(input_shape)
        size = 224 if include_top else None
        if keras.config.image_data_format() == "channels_first":
            return (3, size, size)
        return (size, size, 3)
    if not keras.utils.is_keras_tensor(input_tensor):
        raise ValueError(
            "Argument `input_tensor` must be a symbolic Keras tensor, such as "
            "`keras.Input` or the output of a layer. "
            f"Received: input_tensor={input_tensor!r}"
        )
    shape = tuple(input_tensor.shape[1:])
    if input_shape is not None and tuple(input_shape) != shape:
        raise ValueError(
            "Arguments `input_shape` and `input_tensor` must agree; leave one "
            f"out. Received: input_shape={input_shape}, input_tensor of shape "
            f"{tuple(input_tensor.shape)}"
        )
    return shape


def check_image_shape(shape, patch_size):
    """Checks that `shape` is of an image that holds at least one patch.

    Args:
        shape: Tuple of three, as `image_shape` returns it.
        patch_size: Integer, the side of a patch, in pixels.

    Returns:
        Integer, the number of channels.

    Raises:
        ValueError: If it is not.
    """
    first = keras.config.image_data_format() == "channels_first"
    order = "channels, height, width" if first else "height, width, channels"
    if len(shape) != 3:
        raise ValueError(
            f"Argument `input_shape` must be a tuple of three, ({order}). "
            f"Received: input_shape={shape}"
        )
    channels = shape[0] if first else shape[2]
    if not isinstance(channels, int) or channels < 1:
        raise ValueError(
            f"Argument `input_shape`, ({order}), must have a positive number "
            f"of channels. Received: input_shape={shape}"
        )
    for side in shape[1:] if first else shape[:2]:
        if side is not None and (
            not isinstance(side, int) or side < patch_size
        ):
            raise ValueError(
                f"Argument `input_shape`, ({order}), must have a height and a "
                f"width of at least one patch, {patch_size}, or None. "
                f"Received: input_shape={shape}"
            )
    return channels


def source_inputs(tensor):
    """Finds the inputs that a symbolic tensor is computed from.

    Args:
        tensor: Symbolic output of Keras layers.

    Returns:
        The one input, or the list of them if there are several.
    """
    inputs = keras.utils.get_source_inputs(tensor)
    return inputs[0] if len(inputs) == 1 else inputs


def check_head(include_top, pooling, classes, dropout):
    """Checks the arguments that say how a model ends.

    Raises:
        ValueError: If one is invalid.
    """
    if pooling not in (None, "avg", "max"):
        raise ValueError(
            'Argument `pooling` must be None, "avg" or "max". '
            f"Received: pooling={pooling!r}"
        )
    if include_top:
        check_positive_integer("classes", classes)
    check_rate("dropout", dropout)


def check_weights(
    weights,
    include_top,
    channels,
    classes,
    classifier_activation,
    reset_classifier,
    adapt_channels,
):
    """Checks that the weights asked for can fit the model asked for.

    Raises:
        ValueError: If they can't.
    """
    if weights is None:
        return
    if weights != "imagenet":
        if isinstance(weights, str | os.PathLike) and os.path.isfile(weights):
            return
        raise ValueError(
            'Argument `weights` must be None, "imagenet" or the path of an '
            f"existing file. Received: weights={weights!r}"
        )
    if channels != 3 and not adapt_channels:
        raise ValueError(
            'Weights "imagenet" are made for 3 channels. Pass '
            "`adapt_channels=True` to have them adapted. "
            f"Received: {channels} channels"
        )
    if not include_top or reset_classifier:
        return
    if classes != 1000:
        raise ValueError(
            'The classifier of weights "imagenet" has 1000 classes. Pass '
            "`reset_classifier=True` for a new one on the pretrained body. "
            f"Received: classes={classes}"
        )
    activation = keras.activations.get(classifier_activation)
    if activation not in (keras.activations.linear, keras.activations.softmax):
        raise ValueError(
            'Argument `classifier_activation` must be None or "softmax" with '
            'the classifier of weights "imagenet". Received: '
            f"classifier_activation={classifier_activation!r}"
        )
