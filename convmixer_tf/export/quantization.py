"""Quantizes a deployed model's float32 TFLite file.

There are two schemes, chosen by measurement
(`export/results/tflite_cifar10_*.json`):

"dynamic": the 1 x 1 convolutions, which have most of the arithmetic and of the
weights, multiply in 8 bits. The scale of their activations depends on the
image. Everything else computes in float32, with weights stored as float16.
"int4" is the same with the 1 x 1 weights in 4 bits. A step for the largest
weight would be too large for the other weights, so litert-quantizer's OCTAV
(https://arxiv.org/abs/2206.06501) chooses the ranges with the least squared
error.

"int8": the blocks compute in 8 bits, with scales from calibration images. The
stem computes in float32 and the classifier as in "dynamic" because they lose
the most accuracy and take the least time.
"""

import contextlib
import importlib.util
import io
import warnings

import numpy as np

from convmixer_tf.export.litert import litert_module
from convmixer_tf.export.tflite_model import ends_in_probabilities
from convmixer_tf.export.tflite_model import pack
from convmixer_tf.export.tflite_model import unpack

# Names of layers in the file, and operators that compute in float32.
_STEM, _FIRST_AFFINE = ".*/patch_embed.*", ".*/block_0_affine.*"
_OUTPUT = "StatefulPartitionedCall.*"  # The classifier, if there are maps.
_DYNAMIC = {  # Bits of the weights, and the algorithm for their ranges.
    "dynamic": (8, "min_max_uniform_quantize"),
    "int4": (4, "OCTAV"),
}
_ENDS = ("INPUT", "OUTPUT", "MEAN", "SOFTMAX", "LOGISTIC")
_SMALLEST_SCALE = 1e-9
_FLOATS = "_dequant"  # Suffix of the float copy of an 8-bit tensor.


def quantize(content, quantization, images=None, output_dtype="float32"):
    """Quantizes a float32 TFLite file of a deployed model.

    Args:
        content: Bytes of the file.
        quantization: `"dynamic"`; `"int4"`, the same with the 1 x 1 kernels in
            4 bits; or `"int8"`.
        images: For `"int8"`, pixels in [0, 255] of shape (images, height,
            width, channels).
        output_dtype: For `"int8"`, `"float32"` or `"uint8"`.

    Returns:
        Bytes of the new file. An `"int8"` file takes uint8 pixels.

    Raises:
        ImportError: If `litert-quantizer` or `ai-edge-litert` is not
            installed.
    """
    if quantization != "int8":
        return _dynamic(content, *_DYNAMIC[quantization])
    ranges = measure_ranges(content, images)
    model = unpack(_static(content, ranges))
    _take_uint8(model)
    if output_dtype == "uint8":
        _give_uint8(model, ranges)
    return pack(model)


def measure_ranges(content, images):
    """Finds the minimum and maximum values of all tensors.

    litert-quantizer's own calibration uses a moving average over the images,
    which clips rare values.

    Args:
        content: Bytes of a float32 TFLite file.
        images: As in `quantize`.

    Returns:
        Dictionary from tensor names to dictionaries of `"min"` and `"max"`.
    """
    with _quiet():
        interpreter = litert_module("interpreter").Interpreter(
            model_content=content, experimental_preserve_all_tensors=True
        )
    interpreter.allocate_tensors()
    (image_tensor,) = interpreter.get_input_details()
    numbers = {
        int(number)
        for operator in interpreter._get_ops_details()
        for number in operator["outputs"]
    }
    lows, highs = {}, {}
    for image in images:
        pixels = np.float32(image)[None]
        interpreter.set_tensor(image_tensor["index"], pixels)
        interpreter.invoke()
        for number in numbers:
            values = interpreter.get_tensor(number)
            lows[number] = min(values.min(), lows.get(number, np.inf))
            highs[number] = max(values.max(), highs.get(number, -np.inf))
    return {
        tensor["name"]: {
            "min": lows[tensor["index"]],
            "max": highs[tensor["index"]],
        }
        for tensor in interpreter.get_tensor_details()
        if tensor["index"] in lows
    }


def _module(name):
    """Imports a module of the quantizer, which was renamed after 0.10."""
    for package in ("litert_quantizer", "ai_edge_quantizer"):
        if importlib.util.find_spec(package):
            return importlib.import_module(f"{package}.{name}")
    raise ImportError(
        "Quantizing needs `litert-quantizer`. Install the extra: "
        'pip install "convmixer_tf[export]".'
    )


def _quantizer(content):
    return _module("quantizer").Quantizer(content)


def _dynamic(content, bits, algorithm):
    quantizer = _quantizer(content)
    quantizer.add_dynamic_config(".*", "CONV_2D", bits, algorithm_key=algorithm)
    quantizer.add_dynamic_config(".*", "FULLY_CONNECTED", 8)
    _store_as_float16(quantizer, ".*", "DEPTHWISE_CONV_2D")
    _store_as_float16(quantizer, _STEM, "CONV_2D")
    model = unpack(_run(quantizer))
    for tensor in model.subgraphs[0].tensors:
        found = tensor.quantization
        if found is not None and found.scale is not None:
            # OCTAV gives a channel of zeros a scale of 0.
            found.scale = np.maximum(found.scale, _SMALLEST_SCALE)
    return pack(model)


def _static(content, ranges):
    quantizer = _quantizer(content)
    quantizer.add_static_config(".*", "*", 8, 8)
    for scope, operator in (
        (_STEM, "*"),
        (_FIRST_AFFINE, "*"),
        *((".*", operator) for operator in _ENDS),
    ):
        quantizer.update_quantization_recipe(
            scope, operator, algorithm_key="no_quantize"
        )
    quantizer.add_dynamic_config(".*", "FULLY_CONNECTED", 8)
    quantizer.add_dynamic_config(_OUTPUT, "CONV_2D", 8)
    _store_as_float16(quantizer, _STEM, "CONV_2D")
    return _run(quantizer, ranges)


def _store_as_float16(quantizer, scope, operator):
    qtyping = _module("qtyping")
    weights = qtyping.TensorQuantizationConfig(
        num_bits=16, dtype=qtyping.TensorDataType.FLOAT
    )
    quantizer.update_quantization_recipe(
        scope,
        operator,
        qtyping.OpQuantizationConfig(weight_tensor_config=weights),
        algorithm_key="float_casting",
    )


def _run(quantizer, ranges=None):
    # OCTAV divides a channel of zeros by a range of zero.
    with _quiet(), np.errstate(invalid="ignore"):
        result = quantizer.quantize(
            ranges, enable_progress_bar=False, enable_progress_report=False
        )
    return bytes(result.quantized_model)


@contextlib.contextmanager
def _quiet():
    """Suppresses a LiteRT warning and a progress bar."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.filterwarnings("ignore", ".*experimental_preserve_all_tens")
        yield


def _take_uint8(model):
    """Adds an operator at the start that converts uint8 pixels to float."""
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    (pixels,) = graph.inputs
    new = _add_uint8(model, pixels, b"image_uint8", scale=1.0, zero_point=0)
    graph.operators.insert(0, _convert(model, "DEQUANTIZE", new, pixels))
    graph.inputs = [new]
    signature.inputs[0].tensorIndex = new


def _give_uint8(model, ranges):
    """Adds an operator at the end that converts the outputs to uint8."""
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    (outputs,) = graph.outputs
    name = graph.tensors[outputs].name.decode().removesuffix(_FLOATS)
    low, high = min(ranges[name]["min"], 0), max(ranges[name]["max"], 0)
    scale = max(float(high - low), _SMALLEST_SCALE) / 255
    if ends_in_probabilities(model):
        low, scale = 0, 1 / 256  # As in TFLite.
    zero_point = int(np.rint(-low / scale))
    new = _add_uint8(model, outputs, b"scores_uint8", scale, zero_point)
    graph.operators.append(_convert(model, "QUANTIZE", outputs, new))
    graph.outputs = [new]
    signature.outputs[0].tensorIndex = new


def _add_uint8(model, like, name, scale, zero_point):
    """Adds a uint8 tensor with the shape of another. Returns its index."""
    schema = litert_module("schema_py_generated")
    graph = model.subgraphs[0]
    tensor = schema.TensorT()
    tensor.name, tensor.shape = name, graph.tensors[like].shape
    tensor.type, tensor.buffer = schema.TensorType.UINT8, len(model.buffers)
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = [scale]
    tensor.quantization.zeroPoint = [zero_point]
    model.buffers.append(schema.BufferT())
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _convert(model, name, source, destination):
    """Creates an operator that converts a tensor to another's type."""
    schema = litert_module("schema_py_generated")
    code, operator = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode = code.builtinCode
    code.version = 1
    operator.opcodeIndex = len(model.operatorCodes)
    operator.inputs, operator.outputs = [source], [destination]
    model.operatorCodes.append(code)
    return operator
