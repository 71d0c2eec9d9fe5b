"""Unpacks, describes and packs TFLite files."""

import collections
import pathlib
import struct

import flatbuffers
import numpy as np

from convmixer_tf.export.litert import allocate
from convmixer_tf.export.litert import litert_module
from convmixer_tf.export.litert import names_of_tensors
from convmixer_tf.export.litert import open_interpreter


def unpack(content):
    """Reads a TFLite file.

    Args:
        content: Bytes of the file.

    Returns:
        A `ModelT` of `ai_edge_litert.schema_py_generated`, with all weights
        in its buffers.

    Raises:
        ImportError: If `ai-edge-litert` is not installed.
        ValueError: If it is not a TFLite file.
    """
    schema = litert_module("schema_py_generated")
    try:
        if content[4:8] == b"TFL3":
            return _collect(schema.ModelT.InitFromPackedBuf(content), content)
    except (struct.error, TypeError, ValueError):
        pass  # It is truncated.
    raise ValueError("The file is not a complete TFLite file.")


def _collect(model, content):
    """Reads weights that are stored after the model, as in large files."""
    for buffer in model.buffers:
        if buffer.offset > 1:  # Smaller offsets mean no data.
            end = buffer.offset + buffer.size
            if end > len(content):
                raise ValueError("The weights are truncated.")
            buffer.data = content[buffer.offset : end]
    return model


# Operators that compute nothing.
_PASSED_ON = ("CAST", "DEQUANTIZE", "QUANTIZE", "RESHAPE")


def last_operators(model):
    """Names the operators that compute the outputs.

    Args:
        model: A `ModelT`.

    Returns:
        List of a name for each output, such as `"SOFTMAX"`, or `None` if the
        output is an input. Operators that compute nothing are skipped. An
        operator with a fused activation has a different name than one without.
    """
    graph = model.subgraphs[0]
    makers = {}
    for name, operator in zip(
        operator_names(model), graph.operators, strict=True
    ):
        makers.update((tensor, (name, operator)) for tensor in operator.outputs)
    found = []
    for tensor in graph.outputs:
        name, operator = makers.get(tensor, (None, None))
        while name in _PASSED_ON:
            name, operator = makers.get(operator.inputs[0], (None, None))
        options = operator and operator.builtinOptions
        if getattr(options, "fusedActivationFunction", 0):
            name = f"{name} with an activation"
        found.append(name)
    return found


def operator_names(model):
    """Lists the operator names of a `ModelT`, in order."""
    codes = vars(litert_module("schema_py_generated").BuiltinOperator)
    builtin = {code: name for name, code in codes.items()}
    names = []
    for operator in model.subgraphs[0].operators:
        code = model.operatorCodes[operator.opcodeIndex]
        # Files from before 2020 have only the first one, newer files both.
        name = builtin[max(code.deprecatedBuiltinCode, code.builtinCode)]
        if name == "CUSTOM":
            name = bytes(code.customCode).decode()
        names.append(name)
    return names


def ends_in_probabilities(model):
    """Returns whether all outputs of a `ModelT` are probabilities."""
    return {*last_operators(model)} <= {"LOGISTIC", "SOFTMAX"}


def pack(model):
    """Packs a TFLite file.

    Args:
        model: A `ModelT`. Its buffers are replaced.

    Returns:
        Bytes of the file.
    """
    model.buffers = [_AlignedBuffer(buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


class _AlignedBuffer:
    """Weights aligned to 16 bytes, as TFLite's schema requires.

    The generated classes, and therefore TensorFlow's converter, do not align
    them.
    """

    def __init__(self, data):
        self.data = data

    def Pack(self, builder):
        """Writes the table like the generated class."""
        if self.data is not None:
            data = bytes(self.data)
            builder.Prep(16, len(data))
            vector = builder.CreateByteVector(data)
        builder.StartObject(1)
        if self.data is not None:
            builder.PrependUOffsetTRelativeSlot(0, vector, 0)
        return builder.EndObject()


def describe_tflite(path):
    """Describes a TFLite file.

    Args:
        path: Path of a `.tflite` file.

    Returns:
        Dictionary, ready for JSON: `"quantization"`, the number format, as
        `default_limits` takes it; `"inputs"` and `"outputs"`, lists of
        dictionaries of name, shape, dtype, scale and zero point; `"operators"`,
        the number of each operator; `"custom_operators"`, the names of
        operators that are not built into LiteRT; `"delegation"`, a dictionary
        of `"partitions"`, the number of operator sequences that XNNPACK runs,
        and `"not_delegated"`, the number of each operator that LiteRT's own
        kernels run.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If `ai-edge-litert` is not installed.
        ValueError: If the file is not a TFLite file, or LiteRT does not have
            one of its operators.
    """
    interpreter = open_interpreter(path)
    model = unpack(pathlib.Path(path).read_bytes())
    builtin = vars(litert_module("schema_py_generated").BuiltinOperator)
    names = operator_names(model)
    custom = sorted(set(names) - set(builtin))
    try:
        allocate(interpreter, path)
    except ValueError as error:
        if not custom:
            raise
        raise ValueError(
            f"`{path}` has operators that are not built into LiteRT: "
            f"{', '.join(custom)}."
        ) from error
    tensor_names = names_of_tensors(interpreter)
    return {
        "quantization": _number_format(model.subgraphs[0], names),
        "inputs": _tensors(interpreter.get_input_details(), tensor_names),
        "outputs": _tensors(interpreter.get_output_details(), tensor_names),
        "operators": count(names),
        "custom_operators": custom,
        "delegation": _delegation(interpreter, names),
    }


def count(names):
    """Counts names, with the most frequent first."""
    return dict(collections.Counter(names).most_common())


def _number_format(graph, names):
    """Finds the number format of a graph, as `default_limits` takes it."""
    types = litert_module("schema_py_generated").TensorType
    integers = {types.INT4, types.INT8, types.UINT8, types.INT16}
    kernels = [
        [graph.tensors[number].type for number in operator.inputs[:2]]
        for name, operator in zip(names, graph.operators, strict=True)
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    ]
    found = {tensor.type for tensor in graph.tensors}
    if any(inputs in integers for inputs, _ in kernels):
        return "int8"
    if any(weights in integers for _, weights in kernels):
        return "int4" if types.INT4 in found else "dynamic"
    return "float16" if types.FLOAT16 in found else "float32"


def _delegation(interpreter, names):
    """Counts the operators that XNNPACK runs and does not run.

    A delegate node lists the tensors that it reads and writes. The operators
    between them are delegated. They are found by starting at the written
    tensors.
    """
    nodes = interpreter._get_ops_details()
    operators, added = nodes[: len(names)], nodes[len(names) :]
    delegates = [node for node in added if node["op_name"] == "DELEGATE"]
    producers = {
        int(tensor): number
        for number, operator in enumerate(operators)
        for tensor in operator["outputs"]
    }
    delegated = set()
    for delegate in delegates:
        seen = {int(tensor) for tensor in delegate["inputs"]}
        pending = [int(tensor) for tensor in delegate["outputs"]]
        while pending:
            tensor = pending.pop()
            if tensor in seen or tensor not in producers:
                continue
            seen.add(tensor)
            delegated.add(producers[tensor])
            pending.extend(map(int, operators[producers[tensor]]["inputs"]))
    left = [name for i, name in enumerate(names) if i not in delegated]
    return {"partitions": len(delegates), "not_delegated": count(left)}


def _tensors(details, names):
    described = []
    for tensor in details:
        scale, zero_point = tensor["quantization"]
        described.append(
            {
                "name": names.get(tensor["index"], tensor["name"]),
                "shape": [int(side) for side in tensor["shape"]],
                "dtype": np.dtype(tensor["dtype"]).name,
                "scale": float(scale) if scale else None,
                "zero_point": int(zero_point) if scale else None,
            }
        )
    return described
