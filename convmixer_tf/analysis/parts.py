"""Finds the parts of a ConvMixer in a model."""

import keras
from keras import layers

from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.layers import PatchEmbed


def find_body(model):
    """Finds the layers that compute a model's feature maps.

    Args:
        model: A `keras.Model`.

    Returns:
        List of layers: the `PatchEmbed`, then each `ConvMixerBlock`.

    Raises:
        ValueError: If the model is not a ConvMixer.
    """
    body = [
        layer
        for layer in getattr(model, "layers", [])
        if isinstance(layer, PatchEmbed | ConvMixerBlock)
    ]
    if len(body) < 2 or not isinstance(body[0], PatchEmbed):
        raise ValueError(
            "Argument `model` must be a ConvMixer, with the layers "
            "`patch_embed`, `block_0` and so on. If it is a layer of another "
            f"model, pass the ConvMixer itself. Received: {model!r}"
        )
    return body


def find_head(model):
    """Finds the layers that compute class scores from the last feature map.

    Args:
        model: A `keras.Model`.

    Returns:
        The `GlobalAveragePooling2D` and the `Dense` layer.

    Raises:
        ValueError: If the model does not end in these two, with only dropout in
            between.
    """
    tail = [
        layer
        for layer in getattr(model, "layers", [])[-3:]
        if not isinstance(layer, layers.Dropout)
    ]
    if (
        len(tail) < 2
        or not isinstance(tail[-1], layers.Dense)
        or not isinstance(tail[-2], layers.GlobalAveragePooling2D)
    ):
        raise ValueError(
            "Argument `model` must end in global average pooling and a linear "
            "classifier, as `ConvMixer` does with include_top=True. "
            f"Received: {model!r}, which ends in "
            f"{', '.join(layer.name for layer in tail) or 'nothing'}"
        )
    return tail[-2:]


def last_features(model):
    """Builds the part of a classifier before its pooling.

    Args:
        model: A `keras.Model`, as for `find_head`.

    Returns:
        A `keras.Model` with the same layers, from images to feature maps.
    """
    pool, _ = find_head(model)
    return keras.Model(model.input, pool.input)
