"""Computes the costs of each layer of a ConvMixer."""

import csv
import dataclasses
import functools
import json
import math
import os
from collections.abc import Sequence

import keras
import tensorflow as tf
from keras import layers

from convmixer_tf.analysis.macs import function_macs
from convmixer_tf.analysis.macs import input_spec
from convmixer_tf.analysis.parts import find_body
from convmixer_tf.analysis.receptive_field import receptive_fields
from convmixer_tf.files import PathLike
from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced
from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.layers import PatchEmbed

# Number of convolutions or matrix products in a layer.
_PRODUCTS = {PatchEmbed: 1, ConvMixerBlock: 2, layers.Dense: 1}


@dataclasses.dataclass(frozen=True)
class LayerCosts:
    """The costs of a layer or a whole model for one image.

    Attributes:
        name: The layer's name, or `"total"`.
        output_shape: Tuple, the shape of its output without the batch.
        receptive_field: Integer, the side of the receptive field, in pixels;
            `None` for layers other than patch embeddings and blocks.
        parameters: Integer, the number of trainable weights, including frozen
            ones.
        statistics: Integer, the number of running means and variances.
        macs: Integer, the multiply-accumulates, as in `count_macs`.
        depthwise_macs: Integer, the part of them in depthwise convolutions.
        activations: Integer, the number of outputs of its convolutions and
            dense layers.
        activation_bytes: Integer, the memory of these values.
    """

    name: str
    output_shape: tuple
    receptive_field: int | None
    parameters: int
    statistics: int
    macs: int
    depthwise_macs: int
    activations: int
    activation_bytes: int


def layer_costs(
    model: keras.Model, input_shape: tuple[int | None, ...] | None = None
) -> list[LayerCosts]:
    """Computes the costs of each layer of a ConvMixer for one image.

    The multiply-accumulates are counted in the graph of each layer, like
    `count_macs` for the whole model. timm's published figures do not include
    `depthwise_macs`. The rest equals timm's if two operations are added for
    each value of a batch normalization.

    Activations are counted as in Radosavovic et al., "Designing Network
    Design Spaces", https://arxiv.org/abs/2003.13678: the outputs of
    convolutions and dense layers. They determine the memory. Inference holds
    two or three of these maps at a time. A training step keeps about three for
    each because activations and normalizations keep theirs.

    Args:
        model: A ConvMixer.
        input_shape: Shape of the image. Defaults to the model's. Required if
            the model takes any size.

    Returns:
        List with a `LayerCosts` for each layer that computes, and a last one
        for the whole model, named `"total"`.

    Raises:
        RuntimeError: If Keras' backend is not TensorFlow.
        ValueError: If `model` is not a ConvMixer or not a chain of layers, or
            if the shape of the image is unknown.

    Example:

    ```python
    *rows, total = layer_costs(ConvMixer1024_20(weights=None))
    total.macs, total.depthwise_macs  # (5948547072, 424673280)
    ```
    """
    find_body(model)
    spec = input_spec(model, input_shape)
    fields = receptive_fields(model)
    previous, rows = model.input, []
    counted: dict = {}
    for layer in model.layers:
        if isinstance(layer, layers.InputLayer):
            continue
        if layer.input is not previous:
            raise ValueError(
                "Argument `model` must be a chain of layers. Received: "
                f"`{layer.name}`, which does not take the output of the layer "
                "before"
            )
        previous = layer.output
        rows.append(_measure(layer, spec, fields.get(layer.name), counted))
        spec = tf.TensorSpec((1, *rows[-1].output_shape), previous.dtype)
    return [*rows, _total(rows)]


def _measure(layer, spec, field, counted):
    shape = tuple(layer.compute_output_shape(spec.shape.as_list()))[1:]
    values = _PRODUCTS.get(type(layer), 0) * math.prod(shape)
    macs, depthwise = _macs(layer, spec, counted)
    statistics = sum(
        math.prod(weight.shape)
        for weight in layer.weights
        if weight.name in ("moving_mean", "moving_variance")
    )
    return LayerCosts(
        name=layer.name,
        output_shape=shape,
        receptive_field=field,
        parameters=layer.count_params() - statistics,
        statistics=statistics,
        macs=macs,
        depthwise_macs=depthwise,
        activations=values,
        activation_bytes=values
        * int(layer.compute_dtype.lstrip("bfloat"))
        // 8,
    )


def _macs(layer, spec, counted):
    """Counts equal blocks only once, with the cache `counted`."""
    call = functools.partial(layer, training=False)
    if not isinstance(layer, ConvMixerBlock):
        return function_macs(call, spec), 0
    if layer.kernel_size not in counted:
        counted[layer.kernel_size] = (
            function_macs(call, spec),
            function_macs(layer.depthwise, spec),
        )
    return counted[layer.kernel_size]


def _total(rows):
    sums = {
        field: sum(getattr(row, field) for row in rows)
        for field in (
            "parameters",
            "statistics",
            "macs",
            "depthwise_macs",
            "activations",
            "activation_bytes",
        )
    }
    return LayerCosts("total", rows[-1].output_shape, None, **sums)


def save_costs(
    path: PathLike, rows: Sequence[LayerCosts], *, overwrite: bool = False
) -> None:
    """Writes a table of costs.

    Args:
        path: Path of the file to write: `.json`, `.csv` or, with fewer
            columns, `.md`.
        rows: Rows from `layer_costs`.
        overwrite: Boolean, whether an existing file may be replaced.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`.
        FileNotFoundError: If its directory doesn't exist.
        ValueError: If the suffix is none of these.
    """
    check_destination(path, tuple(_WRITERS), overwrite)
    suffix = os.path.splitext(path)[1]
    with (
        replaced(path) as unfinished,
        open(unfinished, "w", encoding="utf-8", newline="") as file,
    ):
        _WRITERS[suffix](file, rows)


def costs_table(rows: Sequence[LayerCosts]) -> str:
    """Formats costs as a Markdown table.

    Args:
        rows: Rows from `layer_costs`.

    Returns:
        String.
    """
    lines = [
        "| layer | output | receptive field, pixels | parameters | MACs "
        "| depthwise MACs | activations, kB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row.name,
            " x ".join(str(size) for size in row.output_shape),
            f"{row.receptive_field or ''}",
            f"{row.parameters:,}",
            f"{row.macs:,}",
            f"{row.depthwise_macs:,}",
            f"{row.activation_bytes / 1e3:,.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _write_json(file, rows):
    json.dump([dataclasses.asdict(row) for row in rows], file, indent=1)


def _write_csv(file, rows):
    names = [field.name for field in dataclasses.fields(LayerCosts)]
    writer = csv.DictWriter(file, names)
    writer.writeheader()
    for row in rows:
        shape = "x".join(str(size) for size in row.output_shape)
        writer.writerow({**dataclasses.asdict(row), "output_shape": shape})


def _write_markdown(file, rows):
    file.write(costs_table(rows) + "\n")


_WRITERS = {
    ".json": _write_json,
    ".csv": _write_csv,
    ".md": _write_markdown,
}
