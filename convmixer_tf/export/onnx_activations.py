"""Converts activations, any functions of a tensor, to ONNX nodes."""

import math

import keras
import tensorflow as tf

# TensorFlow operations that correspond to one ONNX operator.
_SAME = {
    "Abs": "Abs",
    "Add": "Add",
    "AddV2": "Add",
    "Ceil": "Ceil",
    "Cos": "Cos",
    "Div": "Div",
    "Elu": "Elu",
    "Erf": "Erf",
    "Exp": "Exp",
    "Floor": "Floor",
    "Greater": "Greater",
    "GreaterEqual": "GreaterOrEqual",
    "Inv": "Reciprocal",
    "Less": "Less",
    "LessEqual": "LessOrEqual",
    "Log": "Log",
    "LogSoftmax": "LogSoftmax",
    "LogicalAnd": "And",
    "LogicalNot": "Not",
    "LogicalOr": "Or",
    "Maximum": "Max",
    "Minimum": "Min",
    "Mul": "Mul",
    "Neg": "Neg",
    "Pow": "Pow",
    "RealDiv": "Div",
    "Reciprocal": "Reciprocal",
    "Relu": "Relu",
    "Select": "Where",
    "SelectV2": "Where",
    "Selu": "Selu",
    "Sigmoid": "Sigmoid",
    "Sign": "Sign",
    "Sin": "Sin",
    "Softmax": "Softmax",
    "Softplus": "Softplus",
    "Softsign": "Softsign",
    "Sqrt": "Sqrt",
    "Sub": "Sub",
    "Tan": "Tan",
    "Tanh": "Tanh",
}
_COPIES = ("Identity", "IdentityN", "PreventGradient", "StopGradient")


def write_activation(graph, x, activation, rank=4):
    """Adds an activation to a graph.

    Args:
        graph: A `Graph`.
        x: String, the name of a tensor.
        activation: Function of a tensor.
        rank: Integer, the tensor's number of dimensions.

    Returns:
        String, the name of the activated tensor.

    Raises:
        ValueError: If an operation has no ONNX equivalent.
    """
    if activation is keras.activations.gelu:
        return _gelu(graph, x)
    spec = tf.TensorSpec((None,) * rank, tf.float32)
    traced = tf.function(activation, autograph=False)
    traced = traced.get_concrete_function(spec).graph
    names = {traced.inputs[0].ref(): x}
    for operation in traced.get_operations():
        if operation.type != "Placeholder":
            inputs = [names[tensor.ref()] for tensor in operation.inputs]
            outputs = _write_operation(graph, operation, inputs, activation)
            for tensor, name in zip(operation.outputs, outputs, strict=True):
                names[tensor.ref()] = name
    return names[traced.outputs[0].ref()]


def _gelu(graph, x):
    """Adds the exact GELU in the form that onnxruntime recognizes."""
    y = graph.add("Div", x, graph.constant(math.sqrt(2.0)))
    y = graph.add("Add", graph.add("Erf", y), graph.constant(1.0))
    return graph.add("Mul", graph.add("Mul", x, y), graph.constant(0.5))


def _write_operation(graph, operation, inputs, activation):
    """Adds a TensorFlow operation. Returns the names of its outputs."""
    kind = operation.type
    if kind == "NoOp":
        return []
    if kind in _COPIES:
        return inputs
    if kind in _SAME:
        return [graph.add(_SAME[kind], *inputs)]
    if kind == "Const":
        value = tf.make_ndarray(operation.get_attr("value"))
        if value.size == 1:
            return [graph.constant(value.item())]
    if kind == "Cast" and operation.get_attr("DstT") == tf.float32:
        return [graph.add("Cast", *inputs, to=graph.float_type)]
    if kind == "Square":
        return [graph.add("Mul", *inputs, *inputs)]
    if kind == "Rsqrt":
        return [graph.add("Reciprocal", graph.add("Sqrt", *inputs))]
    if kind == "Relu6":
        x = graph.add("Relu", *inputs)
        return [graph.add("Min", x, graph.constant(6.0))]
    if kind == "LeakyRelu":
        alpha = operation.get_attr("alpha")
        return [graph.add("LeakyRelu", *inputs, alpha=alpha)]
    if kind == "Expm1":
        x = graph.add("Exp", *inputs)
        return [graph.add("Sub", x, graph.constant(1.0))]
    if kind == "Log1p":
        x = graph.add("Add", *inputs, graph.constant(1.0))
        return [graph.add("Log", x)]
    if kind == "Erfc":
        x = graph.add("Erf", *inputs)
        return [graph.add("Sub", graph.constant(1.0), x)]
    if kind in ("ZerosLike", "OnesLike"):
        return [graph.constant(float(kind == "OnesLike"))]
    raise ValueError(
        "The model's activations must consist of operations that have an ONNX "
        f"equivalent. Received: {activation!r}, with the TensorFlow operation "
        f"{kind}"
    )
