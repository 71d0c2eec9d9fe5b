"""What a trained ConvMixer computes, read off its layers in double precision.

Each part is a convolution, an activation and a batch normalization, which in
inference is a scale and a shift of each channel.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from keras import layers

from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.layers import PatchEmbed
from convmixer_tf.models.structure import is_inactive
from convmixer_tf.weights.effective import effective_weights


@dataclasses.dataclass(frozen=True)
class Affine:
    """The map `scale * x + shift` of each channel, both float64 (dim,)."""

    scale: np.ndarray
    shift: np.ndarray


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution and the activation and normalization that follow it.

    Attributes:
        kernel: float64 array. Depthwise: (rows, columns, dim). Otherwise:
            (rows, columns, inputs, dim).
        bias: float64 array (dim,).
        activation: Function of a tensor, element by element.
        norm: `Affine`, the batch normalization after the activation.
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
            without preprocessing and classifier, of any dtype policy; or a
            functional or sequential model that has one in it, with
            augmentation before and a `Dense` layer behind it. Quantized
            kernels and LoRA are read as `effective_weights` gives them.
            Images of a channels-first model are read as channels-last, which
            their weights do not depend on.

    Returns:
        An `Anatomy`. It shares nothing with the model.

    Raises:
        ValueError: If the model is not a chain of ConvMixer's layers, if an
            activation is not applied element by element, or if one of the
            weights is not finite.
    """
    chain = [layer for layer in _chain(model) if not is_inactive(layer)]
    normalization = None
    if chain and isinstance(chain[0], layers.Rescaling | layers.Normalization):
        normalization = chain.pop(0)
    if not (chain and isinstance(chain[0], PatchEmbed)):
        raise _not_a_convmixer(model, "There is no PatchEmbed at its start")
    stem = chain.pop(0)
    blocks = []
    while chain and isinstance(chain[0], ConvMixerBlock):
        blocks.append(chain.pop(0))
    pooling, classifier = _head(model, chain)
    for weight in model.weights:
        if not np.isfinite(_float64(weight)).all():
            raise ValueError(
                "The model's weights must be finite. Received: NaN or "
                f"infinity in {weight.path}"
            )
    for activation in {layer.activation for layer in (stem, *blocks)}:
        _check_elementwise(activation)
    image_shape = _image_shape(model, stem)
    return Anatomy(
        name=model.name,
        image_shape=image_shape,
        preprocessing=normalization
        and _preprocessing(normalization, image_shape[-1], stem.data_format),
        stem=_convolution(stem.conv, stem.activation, stem.norm),
        blocks=tuple(_block(block) for block in blocks),
        pooling=pooling,
        classifier=classifier,
    )


def _chain(model):
    """Lists the layers after the input, those of inner models among them."""
    if isinstance(model, keras.Sequential) and model.built:
        chain = model.layers
    elif hasattr(model, "operations"):
        chain = _path(model)
    else:
        raise _not_a_convmixer(model, "It is not a functional model")
    for layer in chain:
        if isinstance(layer, keras.Model):
            yield from _chain(layer)
        elif not isinstance(layer, layers.InputLayer):
            yield layer


def _path(model):
    """Lists a functional model's layers, each of which feeds the next only."""
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise _not_a_convmixer(
            model,
            f"It has {len(model.inputs)} inputs and {len(model.outputs)} "
            "outputs",
        )
    path, (tensor,) = [], model.outputs
    while tensor is not model.inputs[0]:
        # The layers' `input` is that of an inner model's own graph.
        layer, index, _ = tensor._keras_history
        arguments = layer._inbound_nodes[index].input_tensors
        if len(arguments) != 1:
            raise _not_a_convmixer(
                model, f"Layer {layer.name!r} takes {len(arguments)} tensors"
            )
        path.insert(0, layer)
        (tensor,) = arguments
    return path


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
    if pooling and chain and isinstance(chain[0], layers.Dense):
        dense, *chain = chain
        kernel, bias = map(_float64, effective_weights(dense))
        activation = dense.activation
        linear = activation is keras.activations.linear
        if linear and chain and isinstance(chain[0], layers.Activation):
            activation, *chain = (chain[0].activation, *chain[1:])
        classifier = Classifier(kernel, _or_zeros(bias, kernel), activation)
    if chain:
        raise _not_a_convmixer(
            model,
            f"{type(chain[0]).__name__} {chain[0].name!r} is not part of one",
        )
    return pooling, classifier


def _not_a_convmixer(model, reason):
    return ValueError(
        "Argument `model` must be what `ConvMixer(...)` returns, or a "
        "functional or sequential model of augmentation layers, a ConvMixer, "
        "global pooling and one `Dense` layer, each fed by the one before. "
        f"Received: {model!r}. {reason}. To export any other Keras model, "
        "pass plain=True to `export_tflite` or `export_onnx`, or use "
        "`export_saved_model`."
    )


def _check_elementwise(activation):
    """Checks an activation: channels are divided into groups, and sorted."""
    values = np.linspace(-2, 2, 8, dtype="float32")
    groups = values.reshape(1, 2, 2, 2), *values.reshape(2, 1, 1, 1, 4)
    try:
        together, *apart = (
            np.ravel(keras.ops.convert_to_numpy(activation(x))) for x in groups
        )
        elementwise = np.allclose(
            together, np.concatenate(apart), atol=1e-5, equal_nan=True
        )
    except (TypeError, ValueError):
        elementwise = False
    if not elementwise:
        raise ValueError(
            "The activation of the model's blocks must be applied element by "
            f"element, so that it can be exported. Received: {activation!r}"
        )


def _image_shape(model, stem):
    shape = tuple(model.inputs[0].shape[1:])
    if stem.data_format == "channels_first":
        return (*shape[1:], shape[0])
    return shape


def _preprocessing(layer, channels, data_format):
    config = layer.get_config()
    rescales = isinstance(layer, layers.Rescaling)
    # `None` if the layer was adapted to images.
    values = [
        _float64(
            getattr(layer, name) if config[name] is None else config[name]
        ).ravel()
        for name in (("scale", "offset") if rescales else ("mean", "variance"))
    ]
    sizes = {len(value) for value in values}
    # As images: what is as long as the channels may lie along another side.
    images = (layer.scale, layer.offset) if rescales else (layer.mean[0],)
    side = -3 if data_format == "channels_first" else -1
    along = all(
        np.ndim(x) < 3 or np.size(x) == 1 or np.shape(x)[side] == channels
        for x in images
    )
    if (
        not along
        or not sizes <= {1, channels}
        or (not rescales and layer.invert)
    ):
        raise ValueError(
            "The model's normalization must be over all pixels or over the "
            f"channels, and not inverted. Received: {config}"
        )
    first, second = (np.broadcast_to(value, (channels,)) for value in values)
    if rescales:
        return Affine(first, second)
    scale = 1 / np.maximum(np.sqrt(second), keras.config.epsilon())
    return Affine(scale, -first * scale)


def _block(block):
    depthwise = _convolution(
        block.depthwise, block.activation, block.depthwise_norm
    )
    return Block(
        dataclasses.replace(depthwise, kernel=depthwise.kernel[..., 0]),
        _convolution(block.pointwise, block.activation, block.pointwise_norm),
    )


def _convolution(conv, activation, norm):
    kernel, bias = map(_float64, effective_weights(conv))
    scale = 1 / np.sqrt(_float64(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        scale = scale * _float64(norm.gamma)
    shift = -_float64(norm.moving_mean) * scale
    if norm.center:
        shift = shift + _float64(norm.beta)
    return Convolution(
        kernel, _or_zeros(bias, kernel), activation, Affine(scale, shift)
    )


def _or_zeros(bias, kernel):
    return np.zeros(kernel.shape[-1]) if bias is None else bias


def _float64(values):
    if values is None:
        return None
    return np.asarray(keras.ops.convert_to_numpy(values), "float64")
