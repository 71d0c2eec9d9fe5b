"""A trained ConvMixer, rewritten for where it will run."""

import dataclasses

import keras
import numpy as np
from keras import layers

from convmixer_tf.export.anatomy import read_anatomy
from convmixer_tf.export.construction import STOCK
from convmixer_tf.export.construction import activate
from convmixer_tf.export.construction import apply
from convmixer_tf.export.construction import convolve
from convmixer_tf.export.construction import scale
from convmixer_tf.export.depthwise_split import depthwise
from convmixer_tf.export.depthwise_split import split
from convmixer_tf.export.folding import fold
from convmixer_tf.export.split_rule import TARGETS
from convmixer_tf.export.split_rule import choose_split


@dataclasses.dataclass(frozen=True)
class DeployedBlock:
    """What became of one block.

    Attributes:
        name: String, the prefix of its layers' names.
        divided: Boolean, whether it computes its input divided by the scale
            of its depthwise normalisation, which is gone; if not, that scale
            is a layer.
        smallest_scale: Float, the least absolute value of that scale.
        largest_scale: Float, the largest.
        form: String, how the depthwise kernel is split; see `split`.
        parts: Tuple of the shapes of the parts' kernels, (rows, columns).
        groups: Tuple of integers, into how many channels each the block is
            divided between two pointwise convolutions.
    """

    name: str
    divided: bool
    smallest_scale: float
    largest_scale: float
    form: str
    parts: tuple
    groups: tuple


@dataclasses.dataclass(frozen=True)
class Deployment:
    """What `deploy` rewrote. `dataclasses.asdict` makes JSON of it.

    Attributes:
        target: String, what was deployed for.
        source: String, the name of the model.
        preprocessing_folded: Boolean, whether the model's preprocessing went
            into its first convolution. If not, it had none.
        last_norm: `"folded"`, into the classifier, or `"kept"`, as one layer,
            because there is no classifier.
        blocks: Tuple of `DeployedBlock`.
    """

    target: str
    source: str
    preprocessing_folded: bool
    last_norm: str
    blocks: tuple


def deploy(model, target="float"):
    """Rewrites a ConvMixer for inference, without changing its outputs.

    Preprocessing and normalisations are folded into the convolutions around
    them, and what only training needs is gone. For LiteRT on a CPU, large
    depthwise kernels are split into small ones. All of it is exact algebra,
    done in double precision.

    Args:
        model: A model that `ConvMixer` or one of the variants built. It is
            not changed.
        target: What runs the result. `"float"`: anything that executes a
            large depthwise convolution well, such as TensorFlow or
            onnxruntime. `"litert"`: TFLite files in float32 or float16.
            `"litert_dynamic"`: TFLite files whose weights alone are quantised.
            `"litert_int8"`: TFLite files that compute in 8 bits.

    Returns:
        A functional `keras.Model` of Keras' own layers, in float32, images
        channels-last, which loads without this package. Its attribute
        `deployment`, a `Deployment`, says what was rewritten; it is not saved
        with the model.

    Raises:
        ValueError: If the target is unknown, if the model is not a ConvMixer
            whose image comes straight from `keras.Input`, or if one of its
            weights is not finite.

    Example:

    ```python
    deployed = deploy(model, "litert")
    deployed.save("deployed.keras")
    deployed.deployment.blocks[0].form  # "polyphase_3"
    ```
    """
    if target not in TARGETS:
        raise ValueError(
            f"Argument `target` must be one of {TARGETS}. "
            f"Received: target={target!r}"
        )
    anatomy = read_anatomy(model)
    folded = fold(anatomy, divide=target in ("float", "litert"))
    plan = _plan(anatomy, folded, target)
    deployed = _build(anatomy, folded, plan)
    deployed.deployment = plan
    return deployed


def _plan(anatomy, folded, target):
    stem = anatomy.stem.kernel
    grid = tuple(
        side and side // patch
        for side, patch in zip(
            anatomy.image_shape[:2], stem.shape[:2], strict=True
        )
    )
    blocks = []
    for i, (block, new) in enumerate(
        zip(anatomy.blocks, folded.blocks, strict=True)
    ):
        side, _, dim = block.depthwise.kernel.shape
        form, groups = choose_split(target, side, grid, dim)
        scales = np.abs(block.depthwise.norm.scale)
        blocks.append(
            DeployedBlock(
                name=f"block_{i}",
                divided=new.branch_scale is None,
                smallest_scale=float(scales.min()),
                largest_scale=float(scales.max()),
                form=form,
                parts=tuple(
                    (len(part.rows), len(part.columns))
                    for part in split(side, form)
                ),
                groups=groups,
            )
        )
    return Deployment(
        target=target,
        source=anatomy.name,
        preprocessing_folded=anatomy.preprocessing is not None,
        last_norm="folded" if folded.affine is None else "kept",
        blocks=tuple(blocks),
    )


def _build(anatomy, folded, plan):
    image = keras.Input(anatomy.image_shape, name="image")
    # Each block's channels go their way in groups, from one pointwise
    # convolution to the next. After the last they are together again.
    dim = len(folded.stem_bias)
    ways = [block.groups for block in plan.blocks] + [(dim,)]
    xs = _convolve_in_groups(
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
        x = _mix_space(xs, block, planned)
        xs = _convolve_in_groups(
            x,
            block.pointwise_kernel[None, None],
            block.pointwise_bias,
            block.activation,
            groups,
            f"{planned.name}_pointwise",
        )
    (x,) = xs
    x = _head(x, anatomy.pooling, folded)
    return keras.Model(image, x, name=f"{anatomy.name}_{plan.target}")


def _slices(groups):
    """Gives each group its suffix of names and its slice of the channels."""
    ends = np.cumsum(groups)
    for i, (size, end) in enumerate(zip(groups, ends, strict=True)):
        suffix = f"_group_{i}" if len(groups) > 1 else ""
        yield suffix, slice(int(end) - size, int(end))


def _convolve_in_groups(x, kernel, bias, activation, groups, name):
    outputs = []
    for suffix, group in _slices(groups):
        y = convolve(x, kernel[..., group], bias[group], name + suffix)
        y = activate(y, activation, f"{name}_activation{suffix}")
        outputs.append(y)
    return outputs


def _mix_space(xs, block, planned):
    """Builds a block up to its pointwise convolution."""
    name, outputs = planned.name, []
    for x, (suffix, group) in zip(xs, _slices(planned.groups), strict=True):
        x = scale(
            x,
            block.affine.scale[group],
            block.affine.shift[group],
            f"{name}_affine{suffix}",
        )
        y = depthwise(
            x,
            block.depthwise_kernel[..., group],
            block.depthwise_bias[group],
            planned.form,
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
    if len(outputs) == 1:
        return outputs[0]
    return layers.Concatenate(dtype="float32", name=f"{name}_groups")(outputs)


def _head(x, pooling, folded):
    if folded.affine is not None:
        x = scale(x, folded.affine.scale, folded.affine.shift, "affine")
    if pooling:
        cls = {
            "avg": layers.GlobalAveragePooling2D,
            "max": layers.GlobalMaxPooling2D,
        }[pooling]
        x = cls(name=f"{pooling}_pool", **STOCK)(x)
    if folded.classifier:
        kernel, bias = folded.classifier.kernel, folded.classifier.bias
        predictions = layers.Dense(
            len(bias),
            folded.classifier.activation,
            dtype="float32",
            name="predictions",
        )
        x = apply(predictions, x, kernel, bias)
    return x
