"""Counts the multiply-accumulates of any Keras model in its graph."""

import itertools
import math
import re

import keras
import tensorflow as tf

# Operations that call a function exactly once.
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_LOOKS_LIKE_ONE = re.compile(r"conv|matmul|einsum|dot|attention|rnn|lstm|gru")


def count_macs(
    model: keras.Model, input_shape: tuple[int | None, ...] | None = None
) -> int:
    """Counts the multiply-accumulates of inference for one image.

    The model's graph is traced, so the count does not depend on the types of
    layers. It includes convolutions, depthwise convolutions and matrix
    products, also in attention. Biases, activations, normalizations, pooling
    and resizing are not counted.

    Args:
        model: A `keras.Model` with one input.
        input_shape: Shape of the input without the batch. Defaults to the
            model's. Required if the model takes any size.

    Returns:
        Integer.

    Raises:
        RuntimeError: If Keras' backend is not TensorFlow.
        ValueError: If the shape of the input is unknown, or if the model has an
            unsupported operation. No operation is skipped silently.

    Example:

    ```python
    count_macs(ConvMixer1024_20(weights=None))  # 5948547072
    ```
    """
    spec = input_spec(model, input_shape)
    return function_macs(lambda image: model(image, training=False), spec)


def function_macs(function, spec):
    """Counts the multiply-accumulates of a function, such as a layer.

    Args:
        function: Function of a tensor.
        spec: The `tf.TensorSpec` of that tensor, with known sizes.

    Returns:
        Integer.

    Raises:
        ValueError: As in `count_macs`.
    """
    graph = tf.function(function).get_concrete_function(spec).graph
    graph = graph.as_graph_def(add_shapes=True)
    functions = {f.signature.name: f for f in graph.library.function}
    return _count(graph.node, {}, functions)


def input_spec(model, input_shape=None):
    """Describes the batch of one image for which costs are counted.

    Args:
        model: A `keras.Model`.
        input_shape: As in `count_macs`.

    Returns:
        A `tf.TensorSpec`.

    Raises:
        RuntimeError: If Keras' backend is not TensorFlow.
        ValueError: If the model has several inputs, or the shape is unknown.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "Counting multiply-accumulates needs Keras' TensorFlow backend. "
            "Set KERAS_BACKEND=tensorflow. Received: "
            f"backend={keras.backend.backend()!r}"
        )
    if len(model.inputs) != 1:
        raise ValueError(
            "Argument `model` must have one input. "
            f"Received: {len(model.inputs)} inputs"
        )
    (image,) = model.inputs
    shape = tuple(image.shape[1:] if input_shape is None else input_shape)
    if None in shape:
        raise ValueError(
            "Argument `input_shape` is required because the model takes any "
            f"size, for example (224, 224, 3). Received: {shape}"
        )
    return tf.TensorSpec((1, *shape), image.dtype)


def _count(nodes, arguments, functions):
    """Counts in a graph or in the body of a function.

    Args:
        nodes: List of `NodeDef`.
        arguments: Dictionary from each argument of the function to a list with
            its shape.
        functions: Dictionary from names to `FunctionDef`.

    Returns:
        Integer.
    """
    shapes = {node.name: _shapes(node) for node in nodes}
    shapes.update(arguments)
    return sum(_node_macs(node, shapes, functions) for node in nodes)


def _node_macs(node, shapes, functions):
    called = sum(_body_macs(functions[f], functions) for f in _called(node))
    if node.op in _CALLS:
        return called
    if node.op in _COUNTERS:
        inputs = [
            _find(name, shapes)
            for name in node.input
            if not name.startswith("^")
        ]
        output = _shapes(node)[0]
        if any(size < 0 for size in itertools.chain(output, *inputs)):
            raise ValueError(
                "Cannot count multiply-accumulates for a shape that depends on "
                f"the data: `{node.name}`, an operation {node.op}."
            )
        return _COUNTERS[node.op](node.attr, inputs, output)
    if called or _LOOKS_LIKE_ONE.search(node.op.lower()):
        raise ValueError(
            f"Cannot count the multiply-accumulates of `{node.name}`, an "
            f"operation {node.op}. Supported operations are "
            f"{', '.join(_COUNTERS)}, also within {' and '.join(_CALLS)}."
        )
    return 0


def _body_macs(function, functions):
    arguments = {
        argument.name: _shapes(function.arg_attr[i])
        for i, argument in enumerate(function.signature.input_arg)
    }
    return _count(function.node_def, arguments, functions)


def _called(node):
    """Lists the names of the functions that an operation calls."""
    for value in node.attr.values():
        for function in (value.func, *value.list.func):
            if function.name:
                yield function.name


def _shapes(node):
    """Lists the shapes of a node's outputs. -1 is an unknown size."""
    return [
        [-1] if shape.unknown_rank else [d.size for d in shape.dim]
        for shape in node.attr["_output_shapes"].list.shape
    ]


def _find(name, shapes):
    """Finds a shape by the name of a node's input: `node[:output][:0]`."""
    node, *rest = name.split(":")
    return shapes[node][int(rest[-1]) if rest else 0]


def _convolution(attributes, inputs, output):
    # The kernel's third axis has the input channels of a group.
    return math.prod(inputs[1][:-1]) * math.prod(output)


def _depthwise(attributes, inputs, output):
    return math.prod(inputs[1][:2]) * math.prod(output)


def _product(attributes, inputs, output):
    transposed = attributes["transpose_a"].b or attributes["adj_x"].b
    return inputs[0][-2 if transposed else -1] * math.prod(output)


def _einsum(attributes, inputs, output):
    equation = attributes["equation"].s.decode()
    left = equation.split("->")[0].split(",")
    if "." in equation or len(left) != 2:
        raise ValueError(
            "Cannot count the multiply-accumulates of an Einsum unless it has "
            f"two tensors with named axes. Received: {equation}"
        )
    sizes = {}
    for labels, shape in zip(left, inputs, strict=True):
        sizes.update(zip(labels, shape, strict=True))
    return math.prod(sizes.values())


_COUNTERS = {
    "Conv2D": _convolution,
    "DepthwiseConv2dNative": _depthwise,
    "MatMul": _product,
    "BatchMatMul": _product,
    "BatchMatMulV2": _product,
    "BatchMatMulV3": _product,
    "Einsum": _einsum,
}
