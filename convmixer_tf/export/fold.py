"""Reads a ConvMixer in double precision, and folds its normalizations.

A batch normalization in inference is s * x + t, for each channel. In

    x = s1 * a + t1                    a: what the layer before activated
    h = act(depthwise(x) + b)
    z = x + (s2 * h + t2)
    p = act(W z + c)

t2 goes into the pointwise bias, c + W t2. Where s2 is within `SCALE_RANGE`,
the block computes x / s2 and z / s2 instead: the depthwise kernel times s2 and
W times s2 make up for it, and s2 * h becomes h. Zero padding is the same zero
before and after a scale. It is not so for a shift: t1 can't go through the
depthwise convolution into its bias, which would be wrong at the borders.
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

# Between these, no weight of a file in float16 (normal from 6e-5 to 6e4)
# leaves its range because of the division.
SCALE_RANGE = (2**-7, 2**7)

# Times the median: the scale of a channel that hardly ever changes.
EXTREME = 16


@dataclasses.dataclass
class Linear:
    """A convolution or dense layer, and `scale * activation(...) + shift`.

    Attributes:
        kernel: float64 array. Convolution: (rows, columns, inputs, dim).
            Depthwise: (rows, columns, dim). Dense: (dim, classes).
        bias: float64 array (dim,).
        activation: Function of a tensor, element by element.
        scale: float64 array (dim,), of the normalization after the
            activation, or `None` if there is none.
        shift: The same.
    """

    kernel: np.ndarray
    bias: np.ndarray
    activation: Callable
    scale: np.ndarray | None = None
    shift: np.ndarray | None = None


@dataclasses.dataclass
class Network:
    """What a ConvMixer computes in inference.

    Attributes:
        name: String, the model's name.
        image_shape: (height, width, channels) of the images, in pixels;
            height and width may be `None`.
        preprocessed: Boolean, whether the model had preprocessing. It is
            folded into the stem.
        stem: `Linear`, the patch embedding.
        blocks: List of tuples of two, the depthwise and the pointwise
            `Linear`.
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
        """Maps names of normalizations to the layers before them, in order."""
        norms = {"patch_embed/norm": self.stem}
        for i, (depthwise, pointwise) in enumerate(self.blocks):
            norms[f"block_{i}/depthwise_norm"] = depthwise
            norms[f"block_{i}/pointwise_norm"] = pointwise
        return norms


def read_convmixer(model):
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
        A `Network`. It shares nothing with the model.

    Raises:
        ValueError: If the model is not a chain of ConvMixer's layers, if an
            activation is not applied element by element, or if one of the
            weights is not finite.
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
    """Sorts channels by the scales of their normalizations, where needed.

    In 8 bits all channels of a tensor share one step, which the widest of
    them sets, so groups of channels get tensors of their own. A channel that
    hardly ever changes has a normalization that multiplies it by up to
    1 / sqrt(1e-5) = 316, and with it the error of a step that suits the other
    channels. Where there are such channels, all are sorted by that factor, so
    that the channels of a group have similar ones.

    A block's channels are sorted by the normalization before the block or by
    that in its branch, whichever is extreme; if both are, into two halves by
    the one and each half by the other. What a classifier takes is sorted too;
    what a model without one returns is not. The function stays the same.

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
    """Whether a few channels have far larger scales, float64 (dim,)."""
    scale = np.abs(scale)
    return bool(scale.max() > EXTREME * np.median(scale))


def fold(network, divide, fold_last):
    """Folds all normalizations that can be.

    What remains is a `scale` and a `shift` after the stem and after pointwise
    convolutions, and a `scale` after depthwise ones, or `None`.

    Args:
        network: A `Network`, which is changed.
        divide: Boolean, whether blocks may compute their input divided by
            the scale of the depthwise normalization. It saves a
            multiplication; rounding to 8 bits is the worse for it.
        fold_last: Boolean, whether the last normalization may go into the
            classifier. After maximum pooling it can't.
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
    """Lists the layers after the input, those of inner models among them."""
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
        # The layers' `input` is that of an inner model's own graph.
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
    """Takes the first layer off the list if it is of a kind, else `None`."""
    return chain.pop(0) if chain and isinstance(chain[0], kind) else None


def _not_a_convmixer(model, reason):
    return ValueError(
        "Argument `model` must be what `ConvMixer(...)` returns, or a "
        "functional or sequential model of augmentation layers, a ConvMixer, "
        "global pooling and one `Dense` layer, each fed by the one before. "
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


def _read_head(chain):
    """Takes pooling and a classifier off the list, if they are next."""
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
    # As images: what is as long as the channels may lie along another side.
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
            "The model's normalization must be over all pixels or over the "
            f"channels, and not inverted. Received: {config}"
        )
    scale, shift = (np.broadcast_to(value, (channels,)) for value in values)
    if not rescales:
        mean, variance = scale, shift
        scale = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
        shift = -mean * scale
    # Exact at the borders too: patches are not padded.
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
