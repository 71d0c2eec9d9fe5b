"""Finds the activation of classifiers in exported files."""

# Operations in SavedModel graphs that compute nothing.
_PASSED_ON = {"Cast", "Identity", "Reshape"}
# Operations that add a bias to the product with the kernel.
_ADDED = {"Add", "AddV2"}
_ACTIVATIONS = {
    "LOGISTIC": "sigmoid",
    "SOFTMAX": "softmax",
    "LOG_SOFTMAX": "linear",  # A softmax undoes the logarithm.
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
    "LogSoftmax": "linear",
    "MatMul": "linear",
    "BiasAdd": "linear",
    "FULLY_CONNECTED": "linear",
    # Pooling means that there is no classifier.
    "MEAN": None,
    "Mean": None,
    "Max": None,
    "REDUCE_MAX": None,
}


def activation_of_tflite(path):
    """Finds a TFLite classifier's activation, like `activation_of_keras`."""
    # Imported here because only TFLite files need LiteRT.
    from convmixer_tf.export.tflite_model import last_operators
    from convmixer_tf.export.tflite_model import unpack

    # There are several outputs if there are activation maps.
    names = last_operators(unpack(path.read_bytes()))
    return min(
        (_ACTIVATIONS.get(name, "unknown") for name in names),
        key=("softmax", "sigmoid", "linear", "unknown", None).index,
    )


def activation_of_saved_model(signature, output):
    """Finds a SavedModel classifier's activation, like `activation_of_keras`.

    Args:
        signature: A signature of a loaded SavedModel.
        output: Name of the signature's output.
    """
    graph = signature.graph.as_graph_def()
    functions = {x.signature.name: x for x in graph.library.function}
    nodes = {node.name: node for node in graph.node}
    outputs = sorted(signature.structured_outputs)  # TensorFlow's order.
    name = signature.outputs[outputs.index(output)].name
    while True:
        name, *rest = name.split(":")  # node, node:0 or node:output:0
        if name not in nodes:  # The input.
            return "unknown"
        node, index = nodes[name], rest[-1] if rest else 0
        called = functions.get(node.attr["f"].func.name)
        if called:
            nodes = {x.name: x for x in called.node_def}
            name = called.ret[called.signature.output_arg[int(index)].name]
        elif node.op in _PASSED_ON:
            name = node.input[0]
        elif node.op in _ADDED and _is_dense(node, nodes):
            return "linear"
        else:
            return _ACTIVATIONS.get(node.op, "unknown")


def _is_dense(node, nodes):
    """Returns whether a node adds a bias to a dense layer's product."""
    sources = [nodes.get(name.split(":")[0]) for name in node.input]
    return any(source and source.op == "MatMul" for source in sources)
