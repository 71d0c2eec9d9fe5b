"""A trained ConvMixer, rewritten for where it will run."""

import dataclasses

import keras
import numpy as np
from keras import layers

from convmixer_tf.export.anatomy import read_anatomy
from convmixer_tf.export.channel_order import is_extreme
from convmixer_tf.export.channel_order import sort_channels
from convmixer_tf.export.construction import STOCK
from convmixer_tf.export.construction import activate
from convmixer_tf.export.construction import apply
from convmixer_tf.export.construction import convolve
from convmixer_tf.export.construction import scale
from convmixer_tf.export.depthwise_split import depthwise
from convmixer_tf.export.folding import fold
from convmixer_tf.export.split_rule import TARGETS
from convmixer_tf.export.split_rule import choose_groups
from convmixer_tf.export.split_rule import choose_parts


@dataclasses.dataclass(frozen=True)
class DeployedBlock:
    """What became of one block.

    Attributes:
        name: String, the prefix of its layers' names.
        kernel_size: Integer, the side of the depthwise kernel.
        parts: Tuple of `Part`, the taps of each of the depthwise convolutions
            that replace it. One, if it was left whole.
        groups: Tuple of integers, into how many channels each the block is
            divided from the convolution before it to its pointwise one.
        divided: Boolean, whether it computes its input divided by the scale
            of its depthwise normalization, which is thereby gone. If not, a
            layer multiplies by that scale.
        smallest_scale: Float, the least absolute value of that scale. Where
            the target admits of the division, it is left out because of a
            scale beyond `SANE_SCALES`.
        largest_scale: Float, the largest.
    """

    name: str
    kernel_size: int
    parts: tuple
    groups: tuple
    divided: bool
    smallest_scale: float
    largest_scale: float


@dataclasses.dataclass(frozen=True)
class Deployment:
    """What `deploy` rewrote. `dataclasses.asdict` makes it ready for JSON.

    Attributes:
        target: String, what it was rewritten for.
        source: String, the name of the model.
        preprocessing_folded: Boolean, whether the model's preprocessing went
            into its first convolution. If not, it had none.
        last_norm: What became of the last normalization. `"folded"`: it went
            into the classifier. `"kept"`: it is a layer, because there is no
            classifier, or for 8 bits because its scales are extreme.
        extreme_norms: Tuple of strings, the normalizations of which a few
            channels have a scale of over 16 times the median. For 8 bits,
            their channels are sorted by scale; they are what such a file
            fails by, if it does.
        blocks: Tuple of `DeployedBlock`.
    """

    target: str
    source: str
    preprocessing_folded: bool
    last_norm: str
    extreme_norms: tuple
    blocks: tuple


def deploy(model, target="float"):
    """Rewrites a ConvMixer for inference, without changing its outputs.

    Preprocessing and normalizations are folded into the convolutions around
    them, and what only training needs is gone. For LiteRT on a CPU, large
    depthwise kernels are split into small ones. All of it is exact algebra,
    done in double precision.

    Args:
        model: A model that `ConvMixer` or one of the variants built; or a
            functional or sequential model of augmentation layers, such a
            model, global pooling and one `Dense` layer. It is not changed.
            Weights that are quantized or have LoRA are merged.
        target: What runs the result. `"float"`: anything that executes a
            large depthwise convolution well, such as TensorFlow.
            `"litert"`: TFLite files in float32 or float16.
            `"litert_dynamic"`: TFLite files that multiply in 8 bits in
            their 1 x 1 convolutions, and else compute in float32.
            `"litert_int8"`: TFLite files that compute in 8 bits.

    Returns:
        A functional `keras.Model` of Keras' own layers, in float32, images
        channels-last, which loads without this package. Its attribute
        `deployment`, a `Deployment`, says what was rewritten; it is not saved
        with the model.

    Raises:
        ValueError: If the target is unknown, if the model is not a ConvMixer
            or such a model around one, if its activation is not applied
            element by element, or if one of its weights is not finite.

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
    anatomy = read_anatomy(model)
    in_8_bits = target == "litert_int8"
    if in_8_bits:
        anatomy = sort_channels(anatomy)
    folded = fold(
        anatomy,
        divide=target in ("float", "litert"),
        fold_last=not (in_8_bits and is_extreme(_norms(anatomy)[-1][1])),
    )
    plan = _plan(anatomy, folded, target)
    deployed = _build(anatomy, folded, plan)
    deployed.deployment = plan
    return deployed


def _norms(anatomy):
    """Lists the normalizations' names and scales, in order."""
    norms = [("patch_embed/norm", anatomy.stem.norm.scale)]
    for i, block in enumerate(anatomy.blocks):
        norms += [
            (f"block_{i}/depthwise_norm", block.depthwise.norm.scale),
            (f"block_{i}/pointwise_norm", block.pointwise.norm.scale),
        ]
    return norms


def _plan(anatomy, folded, target):
    return Deployment(
        target=target,
        source=anatomy.name,
        preprocessing_folded=anatomy.preprocessing is not None,
        last_norm="folded" if folded.affine is None else "kept",
        extreme_norms=tuple(
            name for name, scale in _norms(anatomy) if is_extreme(scale)
        ),
        blocks=tuple(
            _plan_block(i, anatomy, folded, target)
            for i in range(len(folded.blocks))
        ),
    )


def _plan_block(i, anatomy, folded, target):
    size, _, dim = folded.blocks[i].depthwise_kernel.shape
    patch_size = len(anatomy.stem.kernel)
    grid = [side and side // patch_size for side in anatomy.image_shape[:2]]
    before, branch = (scale for _, scale in _norms(anatomy)[2 * i :][:2])
    extreme = is_extreme(before) or is_extreme(branch)
    return DeployedBlock(
        name=f"block_{i}",
        kernel_size=size,
        parts=choose_parts(target, size),
        groups=choose_groups(target, size, grid, dim, extreme),
        divided=folded.blocks[i].branch_scale is None,
        smallest_scale=float(np.abs(branch).min()),
        largest_scale=float(np.abs(branch).max()),
    )


def _build(anatomy, folded, plan):
    image = keras.Input(anatomy.image_shape, dtype="float32", name="image")
    # A block's channels go their ways in groups, from the convolution before
    # it to its pointwise one. The last norm, if any, is like a block's input.
    dim = len(folded.stem_bias)
    last = plan.blocks[-1].groups if folded.classifier else (dim,)
    ways = [block.groups for block in plan.blocks]
    ways.append(last if folded.affine else (dim,))
    xs = _convolve(
        image,
        folded.stem_kernel,
        folded.stem_bias,
        folded.activation,
        ways[0],
        "patch_embed",
    )
    for block, planned, groups in zip(
        folded.blocks, plan.blocks, ways[1:], strict=True
    ):
        x = _concatenate(_mix_space(xs, block, planned), planned.name)
        xs = _convolve(
            x,
            block.pointwise_kernel[None, None],
            block.pointwise_bias,
            block.activation,
            groups,
            f"{planned.name}_pointwise",
        )
    if folded.affine:
        xs = _scale(xs, folded.affine, ways[-1], "affine")
    x = _head(_concatenate(xs, "last"), anatomy.pooling, folded.classifier)
    return keras.Model(image, x, name=f"{anatomy.name}_{plan.target}")


def _slices(groups):
    """Gives each group its suffix of names and its slice of the channels."""
    ends = np.cumsum(groups)
    for i, (size, end) in enumerate(zip(groups, ends, strict=True)):
        suffix = f"_group_{i}" if len(groups) > 1 else ""
        yield suffix, slice(int(end) - size, int(end))


def _convolve(x, kernel, bias, activation, groups, name):
    outputs = []
    for suffix, group in _slices(groups):
        y = convolve(x, kernel[..., group], bias[group], name + suffix)
        y = activate(y, activation, f"{name}_activation{suffix}")
        outputs.append(y)
    return outputs


def _scale(xs, affine, groups, name):
    return [
        scale(x, affine.scale[group], affine.shift[group], name + suffix)
        for x, (suffix, group) in zip(xs, _slices(groups), strict=True)
    ]


def _mix_space(xs, block, planned):
    """Builds the block up to its pointwise convolution."""
    name, groups, outputs = planned.name, planned.groups, []
    xs = _scale(xs, block.affine, groups, f"{name}_affine")
    for x, (suffix, group) in zip(xs, _slices(groups), strict=True):
        y = depthwise(
            x,
            block.depthwise_kernel[..., group],
            block.depthwise_bias[group],
            planned.parts,
            f"{name}_depthwise{suffix}",
        )
        y = activate(
            y, block.activation, f"{name}_depthwise_activation{suffix}"
        )
        if block.branch_scale is not None:
            factor = block.branch_scale[group]
            y = scale(y, factor, None, f"{name}_scale{suffix}")
        add = layers.Add(dtype="float32", name=f"{name}_residual{suffix}")
        outputs.append(add([x, y]))
    return outputs


def _concatenate(xs, name):
    if len(xs) == 1:
        return xs[0]
    return layers.Concatenate(dtype="float32", name=f"{name}_groups")(xs)


def _head(x, pooling, classifier):
    if pooling:
        cls = {
            "avg": layers.GlobalAveragePooling2D,
            "max": layers.GlobalMaxPooling2D,
        }[pooling]
        x = cls(name=f"{pooling}_pool", **STOCK)(x)
    if classifier:
        predictions = layers.Dense(
            len(classifier.bias),
            classifier.activation,
            dtype="float32",
            name="predictions",
        )
        x = apply(predictions, x, classifier.kernel, classifier.bias)
    return x
