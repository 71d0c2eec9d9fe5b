"""TFLite files as objects that can be changed, and back."""

import struct

import flatbuffers

from convmixer_tf.export.litert import litert_module


def unpack(content):
    """Reads a TFLite file.

    Args:
        content: Bytes of the file.

    Returns:
        A `ModelT` of `ai_edge_litert.schema_py_generated`, with all weights
        in its buffers.

    Raises:
        ImportError: If `ai-edge-litert` is not installed.
        ValueError: If it is no TFLite file.
    """
    schema = litert_module("schema_py_generated")
    try:
        if content[4:8] == b"TFL3":
            return _collect(schema.ModelT.InitFromPackedBuf(content), content)
    except (struct.error, TypeError, ValueError):
        pass  # It is cut off.
    raise ValueError("The file is not a whole TFLite file.")


def _collect(model, content):
    """Fetches the weights that lie behind the model, as in large files."""
    for buffer in model.buffers:
        if buffer.offset > 1:  # Smaller ones stand for none.
            end = buffer.offset + buffer.size
            if end > len(content):
                raise ValueError("The weights are cut off.")
            buffer.data = content[buffer.offset : end]
    return model


# What computes nothing.
_PASSED_ON = ("CAST", "DEQUANTIZE", "QUANTIZE", "RESHAPE")


def last_operators(model):
    """Names the operators that make the outputs.

    Args:
        model: A `ModelT`.

    Returns:
        List of a name for each output, such as `"SOFTMAX"`; `None` for one
        that is an input. Operators that compute nothing are passed over.
    """
    operators = vars(litert_module("schema_py_generated").BuiltinOperator)
    names = {code: name for name, code in operators.items()}
    graph = model.subgraphs[0]
    makers = {}
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        # Files of before 2020 have the one, today's have both.
        name = names[max(code.deprecatedBuiltinCode, code.builtinCode)]
        makers.update((tensor, (name, operator)) for tensor in operator.outputs)
    found = []
    for tensor in graph.outputs:
        name, operator = makers.get(tensor, (None, None))
        while name in _PASSED_ON:
            name, operator = makers.get(operator.inputs[0], (None, None))
        found.append(name)
    return found


def ends_in_probabilities(model):
    """Tells whether a `ModelT` gives nothing but probabilities."""
    return {*last_operators(model)} <= {"LOGISTIC", "SOFTMAX"}


def pack(model):
    """Writes a TFLite file.

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
    """Weights, aligned to 16 bytes as TFLite's schema says.

    Neither the generated classes nor, therefore, TensorFlow's converter do so.
    """

    def __init__(self, data):
        self.data = data

    def Pack(self, builder):
        """Writes the table, as the generated class does."""
        if self.data is not None:
            data = bytes(self.data)
            builder.Prep(16, len(data))
            vector = builder.CreateByteVector(data)
        builder.StartObject(1)
        if self.data is not None:
            builder.PrependUOffsetTRelativeSlot(0, vector, 0)
        return builder.EndObject()
