"""A builder for ONNX graphs."""

import numpy as np


def import_onnx():
    """Imports `onnx`, or raises an error with install instructions."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            "Exporting ONNX needs `onnx`. Install the extra: "
            'pip install "convmixer_tf[export]".'
        ) from error
    return onnx


class Graph:
    """Nodes in the order of execution, and constants.

    Attributes:
        float_type: ONNX' identifier of float32.
    """

    def __init__(self):
        self._onnx = import_onnx()
        self.float_type = self._onnx.TensorProto.FLOAT
        self._nodes, self._constants, self._scalars = [], [], {}

    def add(self, kind, *inputs, **attributes):
        """Adds a node with one output.

        Args:
            kind: String, the operator.
            *inputs: Names of tensors.
            **attributes: Attributes of the operator.

        Returns:
            String, the name of its output.
        """
        name = f"{kind.lower()}_{len(self._nodes)}"
        node = self._onnx.helper.make_node(
            kind, inputs, [name], name, **attributes
        )
        self._nodes.append(node)
        return name

    def constant(self, values):
        """Adds a float32 constant.

        Args:
            values: Array, or a number. Each number is added only once.

        Returns:
            String, its name.
        """
        values = np.asarray(values, "float32", order="C")
        scalar = values.item() if values.ndim == 0 else None
        if scalar in self._scalars:
            return self._scalars[scalar]
        name = f"constant_{len(self._constants)}"
        tensor = self._onnx.numpy_helper.from_array(values, name)
        self._constants.append(tensor)
        if scalar is not None:
            self._scalars[scalar] = name
        return name

    def model(self, name, opset, pixels, image_shape, output, output_shape):
        """Completes the graph from `image` to `predictions`.

        Args:
            name: String, the graph's name.
            opset: Integer, the version of the operators.
            pixels: `"float32"` or `"uint8"`.
            image_shape: Tuple of integers, and names for sizes that are not
                fixed.
            output: String, the name of the last node's output.
            output_shape: As for `image_shape`.

        Returns:
            An `onnx.ModelProto`.
        """
        helper = self._onnx.helper
        for node in self._nodes:
            node.output[:] = [
                "predictions" if x == output else x for x in node.output
            ]
        kinds = {
            "float32": self.float_type,
            "uint8": self._onnx.TensorProto.UINT8,
        }
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self._nodes,
            name,
            [value("image", kinds[pixels], image_shape)],
            [value("predictions", self.float_type, output_shape)],
            self._constants,
        )
        opsets = [helper.make_opsetid("", opset)]
        return helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=helper.find_min_ir_version_for(opsets),
            producer_name="convmixer_tf",
        )
