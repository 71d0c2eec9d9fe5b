"""What `keras.applications` promises about arguments, checked up front."""

import os

import keras
import numpy as np

from convmixer_tf.layers.validation import check_rate
from convmixer_tf.validation import check_positive_integer
from convmixer_tf.validation import plain
from convmixer_tf.weights.published import DATASETS


def check_sizes(dim, depth, kernel_size, patch_size):
    """Checks the four integers that make an architecture.

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
    """Settles the shape of the images a model takes.

    Args:
        input_shape: What the user gave: a tuple of three, or `None`.
        input_tensor: What the user gave: a symbolic tensor, or `None`.
        include_top: Boolean, whether the model classifies. If not, the default
            size is left open.
        patch_size: Integer, the least height and width, in pixels.
        default_size: Integer, the height and width of a classifier's images
            by default, in pixels.

    Returns:
        A tuple of three, with `None` for a height or width left open, in the
        order of `keras.config.image_data_format()`.

    Raises:
        ValueError: If `input_tensor` is not symbolic, if the two shapes
            differ, or if the shape is not of an image of a patch or more.
    """
    if input_shape is not None:
        # A number is of the wrong rank, as is said below.
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
    """Reads the channels off the shape of an image, a tuple of three."""
    return shape[0] if channels_first() else shape[2]


def image_input(shape, input_tensor):
    """Gives a model its input.

    Args:
        shape: Tuple of three, as `image_shape` returns it.
        input_tensor: What the user gave: a symbolic tensor, or `None`.

    Returns:
        The input of the model, or the list of them if there are several, and
        the image, a symbolic tensor.
    """
    if input_tensor is None:
        image = keras.Input(shape, name="image")
        return image, image
    inputs = keras.utils.get_source_inputs(input_tensor)
    return inputs[0] if len(inputs) == 1 else inputs, input_tensor


def check_head(include_top, pooling, classes, dropout, drop_path):
    """Checks the arguments that say how a model ends and is regularized.

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
    """Raises `ValueError` unless `ConvMixer` knows such an initializer."""
    if value not in (None, "covariance"):
        raise ValueError(
            'Argument `depthwise_initializer` must be None or "covariance". '
            f"Received: depthwise_initializer={value!r}"
        )


def dataset_of(weights):
    """Names the data set of published weights; `None` for any others."""
    known = isinstance(weights, str) and weights in DATASETS
    return weights if known else None


def check_weights(weights, shape, adapt_channels):
    """Checks that there can be such weights, for images of such a shape.

    Raises:
        ValueError: If `weights` is neither one of `DATASETS` nor the path of
            a file, or if they are for another number of channels.
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
    """Checks that the classifier of published weights is asked for.

    Args:
        published: A `PublishedWeights`.
        classes: What the user gave.
        classifier_activation: What the user gave.

    Raises:
        ValueError: If it has other classes or another activation.
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
    """Gives Keras' name of an activation, or what else it is saved as."""
    return keras.activations.serialize(keras.activations.get(activation))
