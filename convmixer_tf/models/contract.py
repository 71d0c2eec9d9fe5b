"""Checks arguments as `keras.applications` does, before building a model."""

import os

import keras
import numpy as np

from convmixer_tf.layers.validation import check_rate
from convmixer_tf.validation import check_positive_integer
from convmixer_tf.validation import plain
from convmixer_tf.weights.published import DATASETS


def check_sizes(dim, depth, kernel_size, patch_size):
    """Checks the four integers that define an architecture.

    Raises:
        ValueError: If one is not a positive integer.
    """
    check_positive_integer("dim", dim)
    check_positive_integer("depth", depth)
    check_positive_integer("kernel_size", kernel_size)
    check_positive_integer("patch_size", patch_size)


def image_shape(
    input_shape, input_tensor, include_top, patch_size, default_size=224
):
    """Determines the shape of a model's images.

    Args:
        input_shape: The user's argument: a tuple of three, or `None`.
        input_tensor: The user's argument: a symbolic tensor, or `None`.
        include_top: Boolean, whether the model has a classifier. If not, the
            default is any height and width.
        patch_size: Integer, the minimum height and width, in pixels.
        default_size: Integer, the default height and width of a classifier's
            images, in pixels.

    Returns:
        A tuple of three in the order of `keras.config.image_data_format()`. A
        height or width that may be any is `None`.

    Raises:
        ValueError: If `input_tensor` is not symbolic, if the two shapes differ,
            or if the image is smaller than a patch.
    """
    if input_shape is not None:
        # A number has the wrong rank, which is reported below.
        sides = input_shape if np.iterable(input_shape) else [input_shape]
        input_shape = tuple(map(plain, sides))
    if input_tensor is not None:
        shape = _shape_of(input_tensor, input_shape)
    elif input_shape is not None:
        shape = input_shape
    else:
        size = default_size if include_top else None
        shape = (3, size, size) if channels_first() else (size, size, 3)
    _check_image_shape(shape, patch_size)
    return shape


def _shape_of(input_tensor, input_shape):
    if not keras.utils.is_keras_tensor(input_tensor):
        raise ValueError(
            "Argument `input_tensor` must be a symbolic Keras tensor, such as "
            "`keras.Input` or the output of a layer. "
            f"Received: input_tensor={input_tensor!r}"
        )
    shape = tuple(input_tensor.shape[1:])
    if input_shape not in (None, shape):
        raise ValueError(
            "Arguments `input_shape` and `input_tensor` must agree; leave one "
            f"out. Received: input_shape={input_shape}, input_tensor of shape "
            f"{tuple(input_tensor.shape)}"
        )
    return shape


def _check_image_shape(shape, patch_size):
    first = channels_first()
    order = "channels, height, width" if first else "height, width, channels"
    if len(shape) != 3:
        raise ValueError(
            f"Argument `input_shape` must be a tuple of three, ({order}). "
            f"Received: input_shape={shape}"
        )
    channels = number_of_channels(shape)
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


def channels_first():
    """Whether `keras.config.image_data_format()` is `"channels_first"`."""
    return keras.config.image_data_format() == "channels_first"


def number_of_channels(shape):
    """Returns the number of channels of an image shape, a tuple of three."""
    return shape[0] if channels_first() else shape[2]


def image_input(shape, input_tensor):
    """Creates a model's input.

    Args:
        shape: Tuple of three from `image_shape`.
        input_tensor: The user's argument: a symbolic tensor, or `None`.

    Returns:
        The model's input, or the list of its inputs if there are several, and
        the image, a symbolic tensor.
    """
    if input_tensor is None:
        image = keras.Input(shape, name="image")
        return image, image
    inputs = keras.utils.get_source_inputs(input_tensor)
    return inputs[0] if len(inputs) == 1 else inputs, input_tensor


def check_head(include_top, pooling, classes, dropout, drop_path):
    """Checks the arguments of the head and the regularization.

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
    check_rate("drop_path", drop_path)


def check_depthwise_initializer(value):
    """Raises `ValueError` unless `ConvMixer` knows the initializer."""
    if value not in (None, "covariance"):
        raise ValueError(
            'Argument `depthwise_initializer` must be None or "covariance". '
            f"Received: depthwise_initializer={value!r}"
        )


def dataset_of(weights):
    """Returns the data set of published weights, or `None` for others."""
    known = isinstance(weights, str) and weights in DATASETS
    return weights if known else None


def check_weights(weights, shape, adapt_channels):
    """Checks that the weights can be loaded for images of a given shape.

    Raises:
        ValueError: If `weights` is neither one of `DATASETS` nor the path of a
            file, or if the weights have another number of channels.
    """
    if dataset_of(weights) is None:
        if isinstance(weights, str | os.PathLike) and os.path.isfile(weights):
            return
        names = ", ".join(f'"{name}"' for name in DATASETS)
        raise ValueError(
            f"Argument `weights` must be None, {names} or the path of an "
            f"existing file. Received: weights={weights!r}"
        )
    channels = number_of_channels(shape)
    if channels != 3 and not adapt_channels:
        raise ValueError(
            f'Weights "{weights}" are made for 3 channels. Pass '
            "`adapt_channels=True` to have them adapted. "
            f"Received: {channels} channels"
        )


def check_pretrained_head(published, classes, classifier_activation):
    """Checks that the arguments fit the classifier of published weights.

    Args:
        published: A `PublishedWeights`.
        classes: The user's argument.
        classifier_activation: The user's argument.

    Raises:
        ValueError: If the number of classes or the activation differs.
    """
    what = f'the classifier of weights "{published.dataset}"'
    if classes != published.classes:
        raise ValueError(
            f"T{what[1:]} has {published.classes} classes. Pass "
            "`reset_classifier=True` for a new one on the pretrained body. "
            f"Received: classes={classes}"
        )
    if activation_name(classifier_activation) not in ("linear", "softmax"):
        raise ValueError(
            'Argument `classifier_activation` must be None or "softmax" with '
            f"{what}. Received: "
            f"classifier_activation={classifier_activation!r}"
        )


def activation_name(activation):
    """Returns Keras' name of an activation, or its serialized form."""
    return keras.activations.serialize(keras.activations.get(activation))
