"""ONNX files, for onnxruntime and whatever else reads them."""

import math
import warnings

import keras
import numpy as np

from convmixer_tf.export.deployment import deploy
from convmixer_tf.export.preparation import check_backend
from convmixer_tf.export.preparation import check_pixels
from convmixer_tf.export.preparation import rebuilt
from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced

# The newest that tf2onnx 1.17 writes. GELU is Erf in it, and so exact.
OPSET = 18
PIXELS = ("float32", "uint8")

_OUTPUT = "predictions"
_SIDES = ("batch", "height", "width")  # those that may be open


def export_onnx(
    model, path, *, dynamic_batch=True, pixels="float32", overwrite=False
):
    """Exports a ConvMixer as an ONNX file of standard operators only.

    The file has one input, `image`, of pixels in [0, 255] and shape (batch,
    height, width, channels), and one output, `predictions`. It holds the model
    as `deploy` rewrites it: preprocessing and normalisations are folded, and
    depthwise convolutions are grouped `Conv`.

    Args:
        model: A model that `ConvMixer` or one of the variants built.
        path: Path of the file to write, ending in `.onnx`. It appears when it
            is complete and `onnx.checker` has no objection.
        dynamic_batch: Whether the file takes any number of images at a time,
            or only one, which some compilers need.
        pixels: `"float32"` or `"uint8"`, the type of the input.
        overwrite: Whether to replace an existing file.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`.
        FileNotFoundError: If its directory doesn't exist.
        ImportError: If `onnx` or `tf2onnx` is not installed.
        OSError: If it can't be written.
        ValueError: If an argument is invalid, or an operator of the model has
            no counterpart in ONNX.

    Example:

    ```python
    export_onnx(model, "model.onnx")
    ```
    """
    check_destination(path, (".onnx",), overwrite)
    if pixels not in PIXELS:
        raise ValueError(
            f"Argument `pixels` must be one of {PIXELS}. "
            f"Received: pixels={pixels!r}"
        )
    check_backend("ONNX files")
    onnx = _import_onnx()
    deployed = deploy(model, "float")
    check_pixels(deployed)
    deployed = _with_erf(deployed)
    with replaced(path) as unfinished:
        _convert(deployed, unfinished, None if dynamic_batch else 1)
        content = onnx.load(unfinished)
        _write_out_gelu(onnx, content.graph)
        _name_tensors(onnx, content.graph)
        if pixels == "uint8":
            _take_uint8(onnx, content.graph)
        _check(onnx, content)
        onnx.save(content, unfinished)


def _import_onnx():
    try:
        import onnx
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Exporting ONNX needs `onnx` and `tf2onnx`. Install the extra: "
            'pip install "convmixer_tf[export]".'
        ) from error
    return onnx


def _check(onnx, content):
    """Checks a file, since tf2onnx keeps operators that it can't convert."""
    try:
        onnx.checker.check_model(content, full_check=True)
    except Exception as error:  # Of the checker, and of shape inference.
        raise ValueError(
            f"tf2onnx can't convert this model: {error}"
        ) from error


def _exact_gelu(x):
    return 0.5 * x * (1.0 + keras.ops.erf(x / math.sqrt(2.0)))


def _with_erf(model):
    """Rebuilds a model with GELU by Erf: Keras uses Erfc, ONNX has none."""

    def change(layer):
        gelu = getattr(layer, "activation", None) is keras.activations.gelu
        return {"activation": _exact_gelu} if gelu else {}

    return rebuilt(model, change)


def _convert(model, path, batch_size):
    _, *sides = model.input_shape
    signature = keras.InputSpec(
        dtype="float32", shape=(batch_size, *sides), name="image"
    )
    with warnings.catch_warnings():
        # Keras gives NumPy back what tf2onnx expects of its version 1.
        warnings.filterwarnings("ignore", "In the future `np.", FutureWarning)
        model.export(
            path,
            format="onnx",
            verbose=False,
            input_signature=[signature],
            opset_version=OPSET,
        )


def _write_out_gelu(onnx, graph):
    """Makes of each Erf the terms by which onnxruntime knows a GELU.

    These are x / 1.414 before it and + 1 after it, of scalars. tf2onnx
    multiplies by the reciprocal, and gives the 1 more dimensions.
    """
    values = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in graph.initializer
    }
    for name, value in (("root_of_2", math.sqrt(2.0)), ("one", 1.0)):
        scalar = onnx.numpy_helper.from_array(np.float32(value), name)
        graph.initializer.append(scalar)

    def rewrite(node, before, value, after, scalar):
        x = [name for name in node.input if name not in values]
        constants = [values[name] for name in node.input if name in values]
        known = len(constants) == 1 and np.allclose(constants[0], value)
        if node.op_type == before and known:
            node.op_type = after
            node.input[:] = [*x, scalar]

    for erf in [node for node in graph.node if node.op_type == "Erf"]:
        for node in graph.node:
            if erf.input[0] in node.output:
                rewrite(node, "Mul", math.sqrt(0.5), "Div", "root_of_2")
            if erf.output[0] in node.input:
                rewrite(node, "Add", 1.0, "Add", "one")
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _name_tensors(onnx, graph):
    """Names the output and the sides that are left open."""
    (output,) = graph.output
    for node in graph.node:
        node.output[:] = [
            _OUTPUT if name == output.name else name for name in node.output
        ]
    output.name = _OUTPUT
    # Inner shapes, which carry the old names, are found again when needed.
    del graph.value_info[:]
    for tensor in (*graph.input, *graph.output):
        sides = tensor.type.tensor_type.shape.dim
        for side, name in zip(sides, _SIDES, strict=False):
            if not side.HasField("dim_value"):
                side.dim_param = name


def _take_uint8(onnx, graph):
    """Lets a graph begin with a cast from 8-bit pixels."""
    (image,) = graph.input
    image.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    for node in graph.node:
        node.input[:] = [
            "pixels" if name == image.name else name for name in node.input
        ]
    cast = onnx.helper.make_node(
        "Cast", [image.name], ["pixels"], "cast", to=onnx.TensorProto.FLOAT
    )
    graph.node.insert(0, cast)
