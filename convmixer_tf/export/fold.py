"""Reads a ConvMixer in double precision and folds its normalizations.

In inference, a batch normalization computes s * x + t for each channel. In

    x = s1 * a + t1                    a: the previous layer's activation
    h = act(depthwise(x) + b)
    z = x + (s2 * h + t2)
    p = act(W z + c)

t2 is folded into the pointwise bias, c + W t2. If s2 is within `SCALE_RANGE`,
the block computes x / s2 and z / s2 instead. The depthwise kernel and W are
multiplied by s2 to compensate, and s2 * h becomes h. Zero padding stays zero
under a scale but not under a shift. Therefore t1 can't be folded into the bias
of the depthwise convolution: the result would be wrong at the borders.
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

# Within this range, the division moves no weight of a float16 file out of the
# normal range (6e-5 to 6e4).
SCALE_RANGE = (2**-7, 2**7)

# Multiple of the median: the scale of a channel that is almost constant.
EXTREME = 16


@dataclasses.dataclass
class Linear:
    """A convolution or dense layer, and `scale * activation(...) + shift`.

    Attributes:
        kernel: float64 array. Convolution: (rows, columns, inputs, dim).
            Depthwise: (rows, columns, dim). Dense: (dim, classes).
        bias: float64 array (dim,).
        activation: An element-wise function of a tensor.
        scale: float64 array (dim,) of the normalization after the activation,
            or `None`.
        shift: float64 array (dim,) of the same normalization, or `None`.
    """

    kernel: np.ndarray
    bias: np.ndarray
    activation: Callable
    scale: np.ndarray | None = None
    shift: np.ndarray | None = None


@dataclasses.dataclass
class Network:
    """The operations of a ConvMixer in inference.

    Attributes:
        name: String, the model's name.
        image_shape: (height, width, channels) of the images, in pixels;
            height and width may be `None`.
        preprocessed: Boolean, whether the model had preprocessing. It is folded
            into the stem.
        stem: `Linear`, the patch embedding.
        blocks: List of pairs, the depthwise and the pointwise `Linear`.
        pooling: `"avg"`, `"max"` or `None`.
        classifier: `Linear` or `None`.
    """

    name: str
    image_shape: tuple
    preprocessed: bool
    stem: Linear
    blocks: list
    pooling: str | None
    classifier: Linear | None

    def norms(self):
        """Maps names of normalizations to the preceding layers, in order."""
        norms = {"patch_embed/norm": self.stem}
        for i, (depthwise, pointwise) in enumerate(self.blocks):
            norms[f"block_{i}/depthwise_norm"] = depthwise
            norms[f"block_{i}/pointwise_norm"] = pointwise
        return norms


def read_convmixer(model):
    """Reads a ConvMixer.

    Args:
        model: A model from `ConvMixer` or a variant, with or without
            preprocessing and classifier, of any dtype policy; or a functional
            or sequential model that contains one, with augmentation before it
            and a `Dense` layer after it. Quantized kernels and LoRA are read
            with `effective_weights`. A channels-first model is read as
            channels-last; its weights are the same.

    Returns:
        A `Network`. It shares no data with the model.

    Raises:
        ValueError: If the model is not a chain of ConvMixer's layers, if an
            activation is not element-wise, or if a weight is not finite.
    """
    chain = [layer for layer in _chain(model) if not is_inactive(layer)]
    normalization = _pop(chain, layers.Rescaling | layers.Normalization)
    stem = _pop(chain, PatchEmbed)
    if stem is None:
        raise _not_a_convmixer(model, "There is no PatchEmbed at its start")
    blocks = []
    while block := _pop(chain, ConvMixerBlock):
        blocks.append(block)
    pooling, classifier = _read_head(chain)
    if chain:
        raise _not_a_convmixer(
            model,
            f"{type(chain[0]).__name__} {chain[0].name!r} is not part of one",
        )
    _check_finite(model)
    for activation in {layer.activation for layer in (stem, *blocks)}:
        _check_elementwise(activation)
    image_shape = model.inputs[0].shape[1:]
    if stem.data_format == "channels_first":
        image_shape = (*image_shape[1:], image_shape[0])
    network = Network(
        name=model.name,
        image_shape=tuple(image_shape),
        preprocessed=normalization is not None,
        stem=_read(stem.conv, stem.activation, stem.norm),
        blocks=[_read_block(block) for block in blocks],
        pooling=pooling,
        classifier=classifier,
    )
    if normalization is not None:
        _fold_preprocessing(network.stem, normalization, stem.data_format)
    return network


def sort_channels(network):
    """Sorts channels by the scales of their normalizations, if necessary.

    In 8 bits, all channels of a tensor share one quantization step, which the
    channel with the largest range determines. Groups of channels therefore get
    separate tensors. The normalization of an almost constant channel multiplies
    it by up to 1 / sqrt(1e-5) = 316, and also multiplies the rounding error of
    a step that suits the other channels. If there are such channels, all
    channels are sorted by that factor, so that the channels of a group have
    similar factors.

    A block's channels are sorted by the normalization before the block or by
    the one in its branch, whichever is extreme. If both are, the first one
    splits the channels into two halves, and the second one sorts each half. The
    input of a classifier is also sorted. The output of a model without
    classifier is not. The function of the network stays the same.

    Args:
        network: A `Network`, which is changed.
    """
    before = network.stem
    for depthwise, pointwise in network.blocks:
        order = _order(before.scale, depthwise.scale)
        _reorder_outputs(before, order)
        _reorder_outputs(depthwise, order)
        pointwise.kernel = pointwise.kernel[:, :, order]
        before = pointwise
    if network.classifier:
        order = _order(before.scale)
        _reorder_outputs(before, order)
        network.classifier.kernel = network.classifier.kernel[order]


def is_extreme(scale):
    """Returns whether a few channels of (dim,) have far larger scales."""
    scale = np.abs(scale)
    return bool(scale.max() > EXTREME * np.median(scale))


def fold(network, divide, fold_last):
    """Folds all normalizations that can be folded.

    Afterwards, the stem and pointwise convolutions have a `scale` and a
    `shift`, and depthwise convolutions have a `scale` or `None`.

    Args:
        network: A `Network`, which is changed.
        divide: Boolean, whether blocks may divide their input by the scale of
            the depthwise normalization. This saves a multiplication but
            increases the rounding error in 8 bits.
        fold_last: Boolean, whether the last normalization may be folded into
            the classifier. With maximum pooling it can't.
    """
    low, high = SCALE_RANGE
    before = network.stem
    for depthwise, pointwise in network.blocks:
        weights, scale = pointwise.kernel[0, 0], np.abs(depthwise.scale)
        pointwise.bias = pointwise.bias + depthwise.shift @ weights
        depthwise.shift = None
        if divide and low <= scale.min() and scale.max() <= high:
            before.scale = before.scale / depthwise.scale
            before.shift = before.shift / depthwise.scale
            depthwise.kernel = depthwise.kernel * depthwise.scale
            pointwise.kernel = pointwise.kernel * depthwise.scale[:, None]
            depthwise.scale = None
        before = pointwise
    classifier = network.classifier
    if classifier and fold_last and network.pooling == "avg":
        # Pooling is a mean, and the mean of s * x + t is s * mean + t.
        classifier.bias = classifier.bias + before.shift @ classifier.kernel
        classifier.kernel = before.scale[:, None] * classifier.kernel
        before.scale = before.shift = None


def _chain(model):
    """Lists the layers after the input, with nested models flattened."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise _not_a_convmixer(model, "It is not a functional model")
    if len(inputs) != 1 or len(model.outputs) != 1:
        raise _not_a_convmixer(
            model,
            f"It has {len(inputs)} inputs and {len(model.outputs)} outputs",
        )
    chain, (tensor,) = [], model.outputs
    while tensor is not inputs[0]:
        # A layer's `input` belongs to the graph of its nested model.
        layer, index, _ = tensor._keras_history
        arguments = layer._inbound_nodes[index].input_tensors
        if len(arguments) != 1:
            raise _not_a_convmixer(
                model, f"Layer {layer.name!r} takes {len(arguments)} tensors"
            )
        inner = isinstance(layer, keras.Model)
        chain = [*(_chain(layer) if inner else [layer]), *chain]
        (tensor,) = arguments
    return chain


def _pop(chain, kind):
    """Removes and returns the first layer if it is a `kind`, else `None`."""
    return chain.pop(0) if chain and isinstance(chain[0], kind) else None


def _not_a_convmixer(model, reason):
    return ValueError(
        "Argument `model` must be a ConvMixer, or a functional or sequential "
        "chain of augmentation layers, a ConvMixer, global pooling and one "
        "`Dense` layer. "
        f"Received: {model!r}. {reason}. To export any other Keras model, "
        "pass plain=True to `export_tflite` or `export_onnx`, or use "
        "`export_saved_model`."
    )


def _check_finite(model):
    for weight in model.weights:
        if not np.isfinite(_float64(weight)).all():
            raise ValueError(
                "The model's weights must be finite. Received: NaN or "
                f"infinity in {weight.path}"
            )


def _check_elementwise(activation):
    """Checks that an activation allows grouping and sorting channels."""
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
            "The activation of the model's blocks must be an element-wise "
            f"function. Received: {activation!r}"
        )


def _read_head(chain):
    """Removes and returns pooling and classifier if they come next."""
    pool = _pop(
        chain, layers.GlobalAveragePooling2D | layers.GlobalMaxPooling2D
    )
    average = isinstance(pool, layers.GlobalAveragePooling2D)
    pooling = pool and ("avg" if average else "max")
    dense = pool and _pop(chain, layers.Dense)
    if not dense:
        return pooling, None
    activation = dense.activation
    if activation is keras.activations.linear:
        activation = (_pop(chain, layers.Activation) or dense).activation
    return pooling, _read(dense, activation)


def _read_block(block):
    depthwise = _read(block.depthwise, block.activation, block.depthwise_norm)
    depthwise.kernel = depthwise.kernel[..., 0]
    pointwise = _read(block.pointwise, block.activation, block.pointwise_norm)
    return depthwise, pointwise


def _read(layer, activation, norm=None):
    kernel, bias = effective_weights(layer)
    kernel = _float64(kernel)
    bias = np.zeros(kernel.shape[-1]) if bias is None else _float64(bias)
    if norm is None:
        return Linear(kernel, bias, activation)
    scale = 1 / np.sqrt(_float64(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        scale = scale * _float64(norm.gamma)
    shift = -_float64(norm.moving_mean) * scale
    if norm.center:
        shift = shift + _float64(norm.beta)
    return Linear(kernel, bias, activation, scale, shift)


def _fold_preprocessing(stem, layer, data_format):
    """Folds a `Rescaling` or `Normalization` layer into the stem."""
    channels = stem.kernel.shape[2]
    config = layer.get_config()
    rescales = isinstance(layer, layers.Rescaling)
    # `None` if the layer was adapted to images.
    values = [
        _float64(
            getattr(layer, name) if config[name] is None else config[name]
        ).ravel()
        for name in (("scale", "offset") if rescales else ("mean", "variance"))
    ]
    # Image-shaped values: a vector of this length may lie along another axis.
    images = (layer.scale, layer.offset) if rescales else (layer.mean[0],)
    side = -3 if data_format == "channels_first" else -1
    along = all(
        np.ndim(x) < 3 or np.size(x) == 1 or np.shape(x)[side] == channels
        for x in images
    )
    if (
        not along
        or not {len(value) for value in values} <= {1, channels}
        or (not rescales and layer.invert)
    ):
        raise ValueError(
            "The model's normalization must be per channel or over all pixels, "
            f"and not inverted. Received: {config}"
        )
    scale, shift = (np.broadcast_to(value, (channels,)) for value in values)
    if not rescales:
        mean, variance = scale, shift
        scale = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
        shift = -mean * scale
    # Exact at the borders, because patches are not padded.
    stem.bias = stem.bias + np.einsum("rcio,i->o", stem.kernel, shift)
    stem.kernel = stem.kernel * scale[:, None]


def _float64(values):
    return np.asarray(keras.ops.convert_to_numpy(values), "float64")


def _order(*scales):
    parts = [np.arange(len(scales[0]))]
    for scale in filter(is_extreme, scales):
        parts = [part[np.argsort(np.abs(scale[part]))] for part in parts]
        parts = [half for part in parts for half in np.array_split(part, 2)]
    return np.concatenate(parts)


def _reorder_outputs(linear, order):
    linear.kernel = linear.kernel[..., order]
    for name in ("bias", "scale", "shift"):
        setattr(linear, name, getattr(linear, name)[order])
