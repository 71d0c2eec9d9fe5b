"""What a trained ConvMixer computes, read off its layers in double precision.

Each part is a convolution, an activation and a batch normalisation, which in
inference is a scale and a shift of each channel.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from keras import layers

from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.layers import PatchEmbed


@dataclasses.dataclass(frozen=True)
class Affine:
    """The map `scale * x + shift` of each channel, both float64 (dim,)."""

    scale: np.ndarray
    shift: np.ndarray


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution and the activation and normalisation that follow it.

    Attributes:
        kernel: float64 array. Depthwise: (rows, columns, dim). Otherwise:
            (rows, columns, inputs, dim).
        bias: float64 array (dim,).
        activation: Function of a tensor, element by element.
        norm: `Affine`, the batch normalisation after the activation.
    """

    kernel: np.ndarray
    bias: np.ndarray
    activation: Callable
    norm: Affine


@dataclasses.dataclass(frozen=True)
class Block:
    """A block: its depthwise and its pointwise convolution."""

    depthwise: Convolution
    pointwise: Convolution


@dataclasses.dataclass(frozen=True)
class Classifier:
    """The last layer: kernel (dim, classes), bias (classes,), activation."""

    kernel: np.ndarray
    bias: np.ndarray
    activation: Callable


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """All that a ConvMixer computes in inference.

    Attributes:
        name: String, the model's name.
        image_shape: (height, width, channels) of the images, in pixels;
            height and width may be None.
        preprocessing: `Affine` of each image channel, or None.
        stem: `Convolution`, the patch embedding.
        blocks: Tuple of `Block`.
        pooling: `"avg"`, `"max"` or None.
        classifier: `Classifier` or None.
    """

    name: str
    image_shape: tuple
    preprocessing: Affine | None
    stem: Convolution
    blocks: tuple
    pooling: str | None
    classifier: Classifier | None


def read_anatomy(model):
    """Reads a ConvMixer.

    Args:
        model: A model that `ConvMixer` or one of the variants built, with or
            without preprocessing and classifier, of any dtype policy. Images
            of a channels-first model are read as channels-last, which their
            weights do not depend on.

    Returns:
        An `Anatomy`. It shares nothing with the model.

    Raises:
        ValueError: If the model is not a chain of ConvMixer's layers, or if
            one of its weights is not finite.
    """
    chain = _chain(model)
    preprocessing = None
    if isinstance(chain[0], layers.Normalization):
        preprocessing = _preprocessing(chain.pop(0))
    if not (chain and isinstance(chain[0], PatchEmbed)):
        raise _not_a_convmixer(model, "There is no PatchEmbed at its start")
    stem = chain.pop(0)
    blocks = []
    while chain and isinstance(chain[0], ConvMixerBlock):
        blocks.append(chain.pop(0))
    pooling, classifier = _head(model, chain)
    anatomy = Anatomy(
        name=model.name,
        image_shape=_image_shape(model, stem),
        preprocessing=preprocessing,
        stem=_convolution(stem.conv, stem.activation, stem.norm),
        blocks=tuple(_block(block) for block in blocks),
        pooling=pooling,
        classifier=classifier,
    )
    for weight in model.weights:
        if not np.isfinite(_array(weight)).all():
            raise ValueError(
                "The model's weights must be finite. Received: NaN or "
                f"infinity in {weight.path}"
            )
    return anatomy


def _chain(model):
    """Lists the layers after the input, each of which feeds the next only."""
    if not hasattr(model, "operations"):
        raise _not_a_convmixer(model, "It is not a functional model")
    first, *chain = model.operations
    if not isinstance(first, layers.InputLayer) or not chain:
        raise _not_a_convmixer(model, "It has no single input")
    before = first.output
    for layer in chain:
        if layer.input is not before:
            raise _not_a_convmixer(
                model, f"Layer {layer.name!r} does not follow the one before"
            )
        before = layer.output
    return chain


def _head(model, chain):
    pooling = classifier = None
    for kind, cls in (
        ("avg", layers.GlobalAveragePooling2D),
        ("max", layers.GlobalMaxPooling2D),
    ):
        if chain and isinstance(chain[0], cls):
            pooling = kind
            chain = chain[1:]
            break
    chain = [layer for layer in chain if not isinstance(layer, layers.Dropout)]
    if pooling == "avg" and chain and isinstance(chain[0], layers.Dense):
        dense, *chain = chain
        classifier = Classifier(
            _array(dense.kernel), _array(dense.bias), dense.activation
        )
    if chain:
        raise _not_a_convmixer(
            model,
            f"{type(chain[0]).__name__} {chain[0].name!r} is not part of one",
        )
    return pooling, classifier


def _not_a_convmixer(model, reason):
    return ValueError(
        "Argument `model` must be what `ConvMixer(...)` returns, its image "
        "straight from `keras.Input`: a chain of preprocessing, patch_embed, "
        f"blocks, pooling and classifier. Received: {model!r}. {reason}."
    )


def _image_shape(model, stem):
    shape = tuple(model.input_shape[1:])
    if stem.data_format == "channels_first":
        return (*shape[1:], shape[0])
    return shape


def _preprocessing(layer):
    config = layer.get_config()
    mean, variance = np.float64(config["mean"]), np.float64(config["variance"])
    scale = 1 / np.sqrt(variance)
    return Affine(scale, -mean * scale)


def _block(block):
    depthwise = _convolution(
        block.depthwise, block.activation, block.depthwise_norm
    )
    return Block(
        dataclasses.replace(depthwise, kernel=depthwise.kernel[..., 0]),
        _convolution(block.pointwise, block.activation, block.pointwise_norm),
    )


def _convolution(conv, activation, norm):
    scale = _array(norm.gamma) / np.sqrt(
        _array(norm.moving_variance) + norm.epsilon
    )
    shift = _array(norm.beta) - _array(norm.moving_mean) * scale
    return Convolution(
        _array(conv.kernel),
        _array(conv.bias),
        activation,
        Affine(scale, shift),
    )


def _array(weight):
    return np.asarray(keras.ops.convert_to_numpy(weight), "float64")
