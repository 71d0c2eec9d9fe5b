"""Exports ONNX files."""

import json
from collections.abc import Sequence

import keras
import numpy as np

from convmixer_tf.export.fold import fold
from convmixer_tf.export.fold import read_convmixer
from convmixer_tf.export.metadata import check_class_names
from convmixer_tf.export.onnx_activations import write_activation
from convmixer_tf.export.onnx_graph import Graph
from convmixer_tf.export.onnx_graph import import_onnx
from convmixer_tf.export.onnx_plain import convert_plain
from convmixer_tf.export.onnx_plain import import_tf2onnx
from convmixer_tf.export.onnx_quantization import quantize_static
from convmixer_tf.export.pixel_range import has_pixel_range
from convmixer_tf.export.preparation import check_backend
from convmixer_tf.export.preparation import check_image_model
from convmixer_tf.export.preparation import classifier_of
from convmixer_tf.export.tflite import check_calibration
from convmixer_tf.export.tflite import static_shape
from convmixer_tf.files import PathLike
from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced
from convmixer_tf.models.structure import check_pixels

# The oldest opset with all operators of the graph. Runtimes support older
# opsets, and `onnx.version_converter` converts to newer ones.
OPSET = 13
PIXELS = ("float32", "uint8")
ONNX_QUANTIZATIONS = ("float32", "int8")


def export_onnx(
    model: keras.Model,
    path: PathLike,
    *,
    dynamic_batch: bool = True,
    pixels: str = "float32",
    class_names: Sequence[str] | None = None,
    quantization: str = "float32",
    calibration_images: np.ndarray | None = None,
    plain: bool = False,
    overwrite: bool = False,
) -> None:
    """Exports a ConvMixer as an ONNX file with standard operators only.

    The file has one input, `image`, with pixels in [0, 255] and shape (batch,
    height, width, channels), and one output, `predictions`. Preprocessing is
    folded into the first convolution. Normalizations are divisions and
    subtractions, so that onnxruntime's `quantize_dynamic` and `quantize_static`
    keep them in float. GELU is exact, with Erf.

    Args:
        model: A model from `ConvMixer` or a variant; or a functional or
            sequential model of augmentation layers, such a model, global
            pooling and one `Dense` layer. Layers that only training needs, such
            as augmentation, are not exported.
        path: Path of the file to write, ending in `.onnx`. The file appears
            when it is complete and passes `onnx.checker`.
        dynamic_batch: Whether the file takes any batch size, or only 1, which
            some compilers need.
        pixels: `"float32"` or `"uint8"`, the type of the input.
        class_names: Class names in the order of the outputs, or `None`. They
            are stored in the file's metadata as a JSON list, `class_names`. A
            single output may have two names, for the negative and the positive
            class.
        quantization: `"float32"`, or `"int8"`, which computes the 1 x 1
            convolutions in 8 bits, between `QuantizeLinear` and
            `DequantizeLinear` nodes.
        calibration_images: For `"int8"`, as in `export_tflite`.
        plain: Whether to convert the model unchanged with tf2onnx. This
            supports any Keras model with one image input and one output, such
            as a ConvMixer with several `Dense` layers after it. It is always
            done for a model from `with_pixel_range`.
        overwrite: Whether to replace an existing file.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`.
        FileNotFoundError: If its directory doesn't exist.
        ImportError: If `onnx` is not installed, or `tf2onnx` for `plain`, or
            `onnxruntime` for `"int8"`.
        OSError: If it can't be written.
        ValueError: If an argument is invalid, or an operation of an activation
            has no ONNX equivalent.

    Example:

    ```python
    export_onnx(model, "model.onnx")
    ```
    """
    check_destination(path, (".onnx",), overwrite)
    if pixels not in PIXELS:
        raise ValueError(
            f"Argument `pixels` must be one of {PIXELS}. "
            f"Received: pixels={pixels!r}"
        )
    check_backend("ONNX files")
    onnx = import_onnx()
    plain = plain or has_pixel_range(model)
    _check_quantization(quantization, plain)
    if quantization == "int8":
        calibration_images = check_calibration(
            calibration_images, static_shape(model)
        )
    elif calibration_images is not None:
        raise ValueError(
            'Argument `calibration_images` needs `quantization="int8"`. '
            f"Received: quantization={quantization!r}"
        )
    if plain:
        check_image_model(model)
        import_tf2onnx()
    else:
        check_pixels(model)
        network = read_convmixer(model)
    if class_names is not None:
        classes = model.output_shape[-1] if classifier_of(model) else 0
        if classes == 1 and len(class_names) == 2:
            classes = 2  # The negative and the positive class.
        check_class_names(class_names, classes)
    if plain:
        batch_size = None if dynamic_batch else 1
        content = convert_plain(model, batch_size, pixels, OPSET)
    else:
        batch = "batch" if dynamic_batch else 1
        # In 8 bits, grouping channels with similar scales reduces the error.
        fold(network, divide=quantization == "float32", fold_last=True)
        content = _write(network, batch, pixels)
    if quantization == "int8":
        content = quantize_static(content, calibration_images, pixels)
    if class_names is not None:
        names = json.dumps(list(class_names))
        onnx.helper.set_model_props(content, {"class_names": names})
    _check(onnx, content)
    with replaced(path) as unfinished:
        onnx.save(content, unfinished)


def _check_quantization(quantization, plain):
    if quantization not in ONNX_QUANTIZATIONS:
        raise ValueError(
            f"Argument `quantization` must be one of {ONNX_QUANTIZATIONS}. "
            f"Received: quantization={quantization!r}"
        )
    if quantization != "float32" and plain:
        raise ValueError(
            "A model that is converted unchanged (`plain`) must stay in "
            f"float32. Received: quantization={quantization!r}, plain={plain}"
        )


def _check(onnx, content):
    """Checks a file, because tf2onnx keeps operators it can't convert."""
    try:
        onnx.checker.check_model(content, full_check=True)
    except Exception as error:  # From the checker or shape inference.
        raise ValueError(
            f"The model can't be converted to ONNX: {error}"
        ) from error


def _write(network, batch, pixels):
    """Writes the graph, with channels first as in ONNX."""
    graph, stem = Graph(), network.stem
    x = "image"
    if pixels == "uint8":
        x = graph.add("Cast", x, to=graph.float_type)
    x = graph.add("Transpose", x, perm=[0, 3, 1, 2])
    x = _convolve(graph, x, stem, strides=stem.kernel.shape[:2])
    for depthwise, pointwise in network.blocks:
        rows, columns, dim = depthwise.kernel.shape
        y = graph.add(
            "Conv",
            x,
            graph.constant(depthwise.kernel.transpose(2, 0, 1)[:, None]),
            graph.constant(depthwise.bias),
            group=dim,
            # For an even kernel, Keras pads one more at the end.
            pads=[
                (rows - 1) // 2,
                (columns - 1) // 2,
                rows // 2,
                columns // 2,
            ],
        )
        y = write_activation(graph, y, depthwise.activation)
        y = _affine(graph, y, depthwise)
        x = _convolve(graph, graph.add("Add", x, y), pointwise)
    x = _write_head(graph, x, network)
    height, width, channels = network.image_shape
    return graph.model(
        network.name,
        OPSET,
        pixels,
        (batch, height or "height", width or "width", channels),
        x,
        _output_shape(network, batch),
    )


def _convolve(graph, x, linear, **attributes):
    """Adds a convolution, its activation, scale and shift."""
    x = graph.add(
        "Conv",
        x,
        graph.constant(linear.kernel.transpose(3, 2, 0, 1)),
        graph.constant(linear.bias),
        **attributes,
    )
    x = write_activation(graph, x, linear.activation)
    return _affine(graph, x, linear)


def _affine(graph, x, linear):
    """Adds `scale * x + shift` for each channel, where not folded.

    It uses Div and Sub because `quantize_static` quantizes Mul, Add and
    BatchNormalization to 8 bits. A common step for all channels is too large
    for almost constant channels, whose scales are hundreds of times larger.
    """
    if linear.scale is None:
        return x
    largest = np.finfo("float32").max
    with np.errstate(divide="ignore"):
        divisor = np.clip(1 / linear.scale, -largest, largest)
    x = graph.add("Div", x, graph.constant(divisor[:, None, None]))
    if linear.shift is None:
        return x
    return graph.add("Sub", x, graph.constant(-linear.shift[:, None, None]))


def _write_head(graph, x, network):
    if network.pooling is None:
        return graph.add("Transpose", x, perm=[0, 2, 3, 1])
    kind = {"avg": "GlobalAveragePool", "max": "GlobalMaxPool"}
    x = graph.add("Flatten", graph.add(kind[network.pooling], x))
    classifier = network.classifier
    if classifier is None:
        return x
    x = graph.add(
        "Gemm",
        x,
        graph.constant(classifier.kernel),
        graph.constant(classifier.bias),
    )
    return write_activation(graph, x, classifier.activation, rank=2)


def _output_shape(network, batch):
    if network.classifier:
        return batch, len(network.classifier.bias)
    dim = len(network.stem.bias)
    if network.pooling:
        return batch, dim
    patch_size = len(network.stem.kernel)
    rows, columns = (
        side and side // patch_size for side in network.image_shape[:2]
    )
    return batch, rows or "rows", columns or "columns", dim
