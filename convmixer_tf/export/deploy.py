"""Rewrites a trained ConvMixer for a deployment target."""

import dataclasses

import keras
import numpy as np
from keras import layers

from convmixer_tf.export.fold import fold
from convmixer_tf.export.fold import is_extreme
from convmixer_tf.export.fold import read_convmixer
from convmixer_tf.export.fold import sort_channels
from convmixer_tf.export.split import TARGETS
from convmixer_tf.export.split import Part
from convmixer_tf.export.split import choose_groups
from convmixer_tf.export.split import choose_parts
from convmixer_tf.export.split import offsets

# Name of the output with class activation maps and of its layer.
MAPS = "class_activation_maps"

# Independent of the global settings and of the training precision.
_STOCK = {"dtype": "float32", "data_format": "channels_last"}


@dataclasses.dataclass(frozen=True)
class DeployedBlock:
    """How one block was rewritten.

    Attributes:
        name: String, the prefix of its layers' names.
        kernel_size: Integer, the side of the depthwise kernel.
        parts: Tuple of `Part`, the taps of the depthwise convolutions that
            replace the original one: offsets of `rows` and of `columns`. There
            is one part if the kernel was not split.
        groups: Tuple of integers, the numbers of channels of the groups, from
            the previous convolution to the pointwise convolution.
        divided: Boolean, whether the block's input is divided by the scale of
            its depthwise normalization, which removes the scale. If not, a
            layer multiplies by that scale.
        smallest_scale: Float, the minimum absolute value of that scale. If the
            target allows the division, it is skipped because of scales outside
            [2**-7, 2**7].
        largest_scale: Float, the maximum absolute value of that scale.
    """

    name: str
    kernel_size: int
    parts: tuple[Part, ...]
    groups: tuple[int, ...]
    divided: bool
    smallest_scale: float
    largest_scale: float


@dataclasses.dataclass(frozen=True)
class Deployment:
    """How `deploy` rewrote a model. `dataclasses.asdict` gives JSON values.

    Attributes:
        target: String, the deployment target.
        source: String, the name of the model.
        preprocessing_folded: Boolean, whether the model's preprocessing was
            folded into its first convolution. If not, it had none.
        last_norm: `"folded"` if the last normalization was folded into the
            classifier. `"kept"` if it is a layer because there is no classifier
            or, for 8 bits, because its scales are extreme.
        extreme_norms: Tuple of strings, the normalizations with a few channels
            whose scale is over 16 times the median. For 8 bits, their channels
            are sorted by scale. They are the most likely cause if an 8-bit file
            is inaccurate.
        blocks: Tuple of `DeployedBlock`.
    """

    target: str
    source: str
    preprocessing_folded: bool
    last_norm: str
    extreme_norms: tuple[str, ...]
    blocks: tuple[DeployedBlock, ...]


def deploy(model: keras.Model, target: str = "float") -> keras.Model:
    """Rewrites a ConvMixer for inference without changing its outputs.

    Preprocessing and normalizations are folded into the convolutions around
    them. Layers that only training needs are removed. For LiteRT on a CPU,
    large depthwise kernels are split into small ones. All steps are exact
    algebra in double precision.

    Args:
        model: A model from `ConvMixer` or a variant; or a functional or
            sequential model of augmentation layers, such a model, global
            pooling and one `Dense` layer. It is not changed. Quantized weights
            and LoRA updates are merged.
        target: `"float"` for runtimes with fast large depthwise convolutions,
            such as TensorFlow; `"litert"` for TFLite files in float32 or
            float16; `"litert_dynamic"` for TFLite files that multiply in 8 bits
            in their 1 x 1 convolutions and otherwise compute in float32;
            `"litert_int8"` for TFLite files that compute in 8 bits.

    Returns:
        A functional `keras.Model` of stock Keras layers, in float32, with
        channels-last images. It loads without this package. Its attribute
        `deployment`, a `Deployment`, describes how it was rewritten and is not
        saved with the model.

    Raises:
        ValueError: If the target is unknown, if the model is not a ConvMixer or
            such a model around one, if its activation is not element-wise, or
            if a weight is not finite.

    Example:

    ```python
    deployed = deploy(model, "litert")
    deployed.save("deployed.keras")
    len(deployed.deployment.blocks[0].parts)  # 9
    ```
    """
    if target not in TARGETS:
        raise ValueError(
            f"Argument `target` must be one of {TARGETS}. "
            f"Received: target={target!r}"
        )
    network = read_convmixer(model)
    in_8_bits = target == "litert_int8"
    if in_8_bits:
        sort_channels(network)
    scales = {name: norm.scale for name, norm in network.norms().items()}
    extreme = [name for name, scale in scales.items() if is_extreme(scale)]
    fold(
        network,
        divide=target in ("float", "litert"),
        fold_last=not (in_8_bits and list(scales)[-1] in extreme),
    )
    last = list(network.norms().values())[-1]
    deployment = Deployment(
        target=target,
        source=network.name,
        preprocessing_folded=network.preprocessed,
        last_norm="folded" if last.scale is None else "kept",
        extreme_norms=tuple(extreme),
        blocks=_describe_blocks(network, scales, target),
    )
    deployed = _build(network, deployment)
    deployed.deployment = deployment
    return deployed


def add_activation_maps(deployed: keras.Model) -> keras.Model:
    """Adds class activation maps to a classifier's outputs.

    Average pooling and the classifier are both linear, so their order does not
    matter. The classifier is applied at each position, and the mean over the
    positions is the logit. The maps need no additional weights.

    Args:
        deployed: Classifier from `deploy`.

    Returns:
        A functional `keras.Model` of the same input and two outputs, a
        dictionary: `"predictions"`, as before, and `"class_activation_maps"`,
        of shape (batch, rows, columns, classes), in patches, whose mean over
        rows and columns are the logits.

    Raises:
        ValueError: If the model does not end in average pooling and a
            classifier.
    """
    pool, head = deployed.layers[-2:]
    if not isinstance(pool, layers.GlobalAveragePooling2D):
        raise ValueError(
            "Class activation maps need a classifier after average pooling, as "
            "with `include_top=True`. Received: a model that ends in "
            f"`{pool.name}` and `{head.name}`"
        )
    kernel, bias = head.get_weights()
    maps = _convolve(pool.input, kernel[None, None], bias, MAPS)
    logits = layers.GlobalAveragePooling2D(name="logits", **_STOCK)(maps)
    predictions = _activate(logits, head.activation, "predictions")
    return keras.Model(
        deployed.input,
        {"predictions": predictions, MAPS: maps},
        name=deployed.name,
    )


def _describe_blocks(network, scales, target):
    """Plans each block. `scales` are the scales of the normalizations."""
    patch_size = len(network.stem.kernel)
    grid = [side and side // patch_size for side in network.image_shape[:2]]
    scales = list(scales.values())
    blocks = []
    for i, (depthwise, _) in enumerate(network.blocks):
        before, branch = scales[2 * i : 2 * i + 2]
        size, _, dim = depthwise.kernel.shape
        extreme = is_extreme(before) or is_extreme(branch)
        block = DeployedBlock(
            name=f"block_{i}",
            kernel_size=size,
            parts=choose_parts(target, size),
            groups=choose_groups(target, size, grid, dim, extreme),
            divided=depthwise.scale is None,
            smallest_scale=float(np.abs(branch).min()),
            largest_scale=float(np.abs(branch).max()),
        )
        blocks.append(block)
    return tuple(blocks)


def _build(network, deployment):
    """Builds the network. Between blocks, `x` is a list of groups.

    A block's channels are split into groups from the previous convolution to
    the pointwise convolution.
    """
    image = keras.Input(network.image_shape, dtype="float32", name="image")
    blocks = deployment.blocks
    groups = [block.groups for block in blocks]
    # A norm that is kept before a classifier is grouped like a block's.
    kept = deployment.last_norm == "kept" and network.classifier
    whole = (len(network.stem.bias),)
    groups.append(groups[-1] if kept and blocks else whole)
    affine = [f"{block.name}_affine" for block in blocks] + ["affine"]
    xs = _mix_channels(image, network.stem, groups[0], "patch_embed", affine[0])
    for i, (depthwise, pointwise) in enumerate(network.blocks):
        x = _mix_space(xs, depthwise, blocks[i])
        name = f"{blocks[i].name}_pointwise"
        xs = _mix_channels(x, pointwise, groups[i + 1], name, affine[i + 1])
    x = _concatenate(xs, "last")
    if network.pooling == "avg":
        x = layers.GlobalAveragePooling2D(name="avg_pool", **_STOCK)(x)
    if network.pooling == "max":
        x = layers.GlobalMaxPooling2D(name="max_pool", **_STOCK)(x)
    if head := network.classifier:
        predictions = layers.Dense(
            len(head.bias), head.activation, dtype="float32", name="predictions"
        )
        x = _apply(predictions, x, head.kernel, head.bias)
    return keras.Model(image, x, name=f"{network.name}_{deployment.target}")


def _mix_channels(x, linear, groups, name, affine):
    """Builds a stem or a pointwise convolution and the norm after it."""
    xs = []
    for suffix, group in _slices(groups):
        y = _convolve(
            x, linear.kernel[..., group], linear.bias[group], name + suffix
        )
        y = _activate(y, linear.activation, f"{name}_activation{suffix}")
        if linear.scale is not None:
            scale, shift = linear.scale[group], linear.shift[group]
            y = _scale(y, scale, shift, affine + suffix)
        xs.append(y)
    return xs


def _mix_space(xs, linear, block):
    """Builds a depthwise convolution and its residual connection."""
    outputs, name = [], block.name
    for x, (suffix, group) in zip(xs, _slices(block.groups), strict=True):
        y = _depthwise(
            x,
            linear.kernel[..., group],
            linear.bias[group],
            block.parts,
            f"{name}_depthwise{suffix}",
        )
        y = _activate(
            y, linear.activation, f"{name}_depthwise_activation{suffix}"
        )
        if linear.scale is not None:
            y = _scale(y, linear.scale[group], None, f"{name}_scale{suffix}")
        add = layers.Add(dtype="float32", name=f"{name}_residual{suffix}")
        outputs.append(add([x, y]))
    return _concatenate(outputs, name)


def _slices(groups):
    """Yields each group's name suffix and slice of the channels."""
    ends = np.cumsum(groups)
    for i, (size, end) in enumerate(zip(groups, ends, strict=True)):
        suffix = f"_group_{i}" if len(groups) > 1 else ""
        yield suffix, slice(int(end) - size, int(end))


def _concatenate(xs, name):
    if len(xs) == 1:
        return xs[0]
    return layers.Concatenate(dtype="float32", name=f"{name}_groups")(xs)


def _apply(layer, x, *weights):
    """Applies a new layer and sets its weights, except those that are None."""
    x = layer(x)
    layer.set_weights(
        [np.asarray(w, "float32") for w in weights if w is not None]
    )
    return x


def _activate(x, activation, name):
    return layers.Activation(activation, dtype="float32", name=name)(x)


def _convolve(x, kernel, bias, name):
    """Applies a convolution with a stride of the kernel size."""
    size = kernel.shape[:2]
    conv = layers.Conv2D(
        kernel.shape[-1], size, strides=size, name=name, **_STOCK
    )
    return _apply(conv, x, kernel, bias)


def _scale(x, scale, shift, name):
    """Computes `scale * x + shift`, or `scale * x` if `shift` is `None`.

    A 1 x 1 depthwise convolution is a single operator in every runtime.
    """
    conv = layers.DepthwiseConv2D(
        1, use_bias=shift is not None, name=name, **_STOCK
    )
    return _apply(conv, x, scale[None, None, :, None], shift)


def _depthwise(x, kernel, bias, parts, name):
    """Applies a depthwise convolution with "same" padding in parts.

    Args:
        x: Symbolic tensor (batch, height, width, dim).
        kernel: Array (side, side, dim).
        bias: Array (dim,).
        parts: Tuple of `Part` from `split_taps`.
        name: Name of the layer, or prefix of the parts' names.

    Returns:
        Symbolic tensor of the shape of `x`.
    """
    total, *others = (
        _depthwise_part(
            x,
            kernel,
            None if i else bias,
            part,
            f"{name}_part_{i}" if len(parts) > 1 else name,
        )
        for i, part in enumerate(parts)
    )
    for i, other in enumerate(others, 1):
        add = layers.Add(dtype="float32", name=f"{name}_sum_{i}")
        total = add([total, other])
    return total


def _depthwise_part(x, kernel, bias, part, name):
    sides = part.rows, part.columns
    # Whether "same" padding gives the first taps the right offsets.
    same = all(taps[0] == -((taps[-1] - taps[0]) // 2) for taps in sides)
    if not same:
        pads = [(-taps[0], taps[-1]) for taps in sides]
        x = layers.ZeroPadding2D(pads, name=f"{name}_pad", **_STOCK)(x)
    conv = layers.DepthwiseConv2D(
        tuple(len(taps) for taps in sides),
        padding="same" if same else "valid",
        dilation_rate=tuple(map(_step, sides)),
        use_bias=bias is not None,
        name=name,
        **_STOCK,
    )
    first = offsets(len(kernel))[0]
    kernel = kernel[np.ix_(*(np.subtract(taps, first) for taps in sides))]
    return _apply(conv, x, kernel[..., None], bias)


def _step(taps):
    return taps[1] - taps[0] if len(taps) > 1 else 1
