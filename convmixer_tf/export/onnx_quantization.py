"""Quantizes ONNX files to 8 bits with onnxruntime."""

import logging
import os
import tempfile

import numpy as np

from convmixer_tf.export.onnx_graph import import_onnx


def quantize_static(content, images, pixels):
    """Quantizes the 1 x 1 convolutions of an ONNX file, in QDQ format.

    They hold most of the weights. Their inputs are unsigned, with ranges from
    the calibration images. Each output channel of a kernel has its own step.
    The stem, the depthwise convolutions and the classifier stay in float32
    because quantizing them reduces the accuracy and saves little.

    Args:
        content: The `onnx.ModelProto` of a ConvMixer from `export_onnx`.
        images: float32 array of pixels in [0, 255], (images, height, width,
            channels).
        pixels: `"float32"` or `"uint8"`, the type of the file's input.

    Returns:
        An `onnx.ModelProto`.

    Raises:
        ImportError: If `onnxruntime` is not installed.
    """
    onnx = import_onnx()
    try:
        from onnxruntime import quantization
    except ImportError as error:
        raise ImportError(
            "Quantizing ONNX files needs `onnxruntime`. Install the extra: "
            'pip install "convmixer_tf[export]".'
        ) from error
    images = np.rint(images) if pixels == "uint8" else images
    batches = iter([{"image": x[None]} for x in images.astype(pixels)])

    class Reader(quantization.CalibrationDataReader):
        def get_next(self):
            return next(batches, None)

    with tempfile.TemporaryDirectory() as folder:
        source, result = (os.path.join(folder, x) for x in ("float", "int8"))
        onnx.save(content, source)
        # It logs advice for graphs from other exporters.
        logging.disable(logging.WARNING)
        try:
            quantization.quantize_static(
                source,
                result,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                nodes_to_quantize=_pointwise(content.graph),
                activation_type=quantization.QuantType.QUInt8,
                per_channel=True,
            )
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(result)


def _pointwise(graph):
    """Lists the names of the 1 x 1 convolutions after the stem."""
    shapes = {tensor.name: tensor.dims for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    return [
        node.name
        for node in convolutions[1:]
        if all(x.name != "group" for x in node.attribute)
        and list(shapes[node.input[1]][2:]) == [1, 1]
    ]
