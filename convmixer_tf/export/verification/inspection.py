"""What is in a TFLite file, and what XNNPACK makes of it."""

import collections
import pathlib

import numpy as np

from convmixer_tf.export.litert import allocate
from convmixer_tf.export.litert import names_of_tensors
from convmixer_tf.export.litert import open_interpreter

_KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_DELEGATE = "DELEGATE"


def describe_tflite(path):
    """Lists what is in a TFLite file.

    Args:
        path: Path of a `.tflite` file.

    Returns:
        Dictionary, ready for JSON: `"scheme"`, one of those of
        `default_limits`; `"inputs"` and `"outputs"`, lists of dictionaries of
        name, shape, dtype, scale and zero point; `"operators"`, how often
        each occurs; `"custom_operators"`, names of those that are not built
        into LiteRT; `"delegation"`, a dictionary of `"partitions"`, how many
        runs of operators XNNPACK takes over, and `"not_delegated"`, how many
        of each operator it leaves to LiteRT's own kernels.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If `ai-edge-litert` is not installed.
        ValueError: If the file is not a TFLite file, or LiteRT lacks an
            operator of it.
    """
    from ai_edge_litert import schema_py_generated

    interpreter = open_interpreter(path)
    operators = interpreter._get_ops_details()
    names = [operator["op_name"] for operator in operators]
    builtin = vars(schema_py_generated.BuiltinOperator)
    custom = sorted({name for name in names if name not in builtin})
    try:
        allocate(interpreter, path)
    except ValueError as error:
        if not custom:
            raise
        raise ValueError(
            f"`{path}` has operators that are not built into LiteRT: "
            f"{', '.join(custom)}."
        ) from error
    nodes = interpreter._get_ops_details()[len(operators) :]
    delegates = [node for node in nodes if node["op_name"] == _DELEGATE]
    left = _not_delegated(operators, delegates)
    known = names_of_tensors(interpreter)
    return {
        "scheme": _scheme(path, operators, interpreter.get_tensor_details()),
        "inputs": _tensors(interpreter.get_input_details(), known),
        "outputs": _tensors(interpreter.get_output_details(), known),
        "operators": count(names),
        "custom_operators": custom,
        "delegation": {
            "partitions": len(delegates),
            "not_delegated": count(node["op_name"] for node in left),
        },
    }


def count(names):
    """Counts names; the most frequent come first."""
    return dict(collections.Counter(names).most_common())


def _not_delegated(operators, delegates):
    """Finds the operators outside of all delegates.

    A delegate node knows the tensors it reads and the tensors it leaves
    behind. What lies between, going back from the latter, is inside.
    """
    producers = {
        int(tensor): number
        for number, operator in enumerate(operators)
        for tensor in operator["outputs"]
    }
    inside = set()
    for delegate in delegates:
        known = {int(tensor) for tensor in delegate["inputs"]}
        pending = [int(tensor) for tensor in delegate["outputs"]]
        while pending:
            tensor = pending.pop()
            if tensor in known or tensor not in producers:
                continue
            known.add(tensor)
            inside.add(producers[tensor])
            pending.extend(map(int, operators[producers[tensor]]["inputs"]))
    return [
        operator
        for number, operator in enumerate(operators)
        if number not in inside
    ]


def _scheme(path, operators, tensors):
    kernels = [
        operator["operand_types"][:2]
        for operator in operators
        if operator["op_name"] in _KERNELS
    ]
    if any(np.dtype(taken).kind in "iu" for taken, _ in kernels):
        return "int8"
    if any(np.dtype(weights).kind in "iu" for _, weights in kernels):
        return "int4" if _has_int4(path) else "dynamic"
    if any(tensor["dtype"] == np.float16 for tensor in tensors):
        return "float16"
    return "float32"


def _has_int4(path):
    """Whether a file has tensors of 4 bits, which LiteRT calls int8."""
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.Model.GetRootAs(pathlib.Path(path).read_bytes()).Subgraphs(0)
    return any(
        graph.Tensors(number).Type() == schema.TensorType.INT4
        for number in range(graph.TensorsLength())
    )


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
