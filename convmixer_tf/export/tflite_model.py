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


def ends_in_probabilities(model):
    """Tells whether a model's only output are probabilities.

    Args:
        model: A `ModelT`.

    Returns:
        Boolean, whether a softmax or a sigmoid is its last operator, but for
        those that compute nothing.
    """
    kinds = litert_module("schema_py_generated").BuiltinOperator
    # Files of before 2020 have the one code, today's have both.
    codes = [
        max(code.deprecatedBuiltinCode, code.builtinCode)
        for code in model.operatorCodes
    ]
    passed_on = {kinds.QUANTIZE, kinds.DEQUANTIZE, kinds.RESHAPE}
    last = None
    for operator in model.subgraphs[0].operators:
        if codes[operator.opcodeIndex] not in passed_on:
            last = codes[operator.opcodeIndex]
    return last in (kinds.LOGISTIC, kinds.SOFTMAX)


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
