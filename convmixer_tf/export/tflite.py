"""Exports TFLite files, in float or quantized."""

import tempfile
import warnings
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from convmixer_tf.data.validation import check_crop_fraction
from convmixer_tf.deprecation import warn_renamed
from convmixer_tf.export.deploy import add_activation_maps
from convmixer_tf.export.deploy import deploy
from convmixer_tf.export.litert import litert_module
from convmixer_tf.export.metadata import TFLiteMetadata
from convmixer_tf.export.metadata import add_metadata
from convmixer_tf.export.metadata import check_class_names
from convmixer_tf.export.pixel_range import has_pixel_range
from convmixer_tf.export.preparation import check_backend
from convmixer_tf.export.preparation import check_convmixer
from convmixer_tf.export.preparation import in_float32
from convmixer_tf.export.quantization import quantize
from convmixer_tf.export.saved_model import system_errors
from convmixer_tf.export.tflite_model import pack
from convmixer_tf.export.tflite_model import unpack
from convmixer_tf.files import PathLike
from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced
from convmixer_tf.models.structure import check_pixels
from convmixer_tf.validation import check_orientation

# Number formats and their targets of `deploy`.
TARGETS = {
    "float32": "litert",
    "float16": "litert",
    "dynamic": "litert_dynamic",
    "int4": "litert_dynamic",
    "int8": "litert_int8",
}
QUANTIZATIONS = tuple(TARGETS)
PLAIN_QUANTIZATIONS = ("float32", "float16", "dynamic", "int8")
MIN_CALIBRATION_IMAGES = 10


def export_tflite(
    model: keras.Model,
    path: PathLike,
    *,
    quantization: str = "float32",
    calibration_images: np.ndarray | None = None,
    output_dtype: str = "float32",
    class_names: Sequence[str] | None = None,
    description: str = "",
    crop_fraction: float | None = None,
    orientation: str | None = None,
    class_activation_maps: bool = False,
    plain: bool = False,
    overwrite: bool = False,
) -> None:
    """Exports a classifier as a TFLite file with batch size 1.

    `deploy` rewrites a ConvMixer for LiteRT. Any other model needs
    `with_pixel_range` first and is converted unchanged. The file takes pixels
    in [0, 255]. It has a signature `serving_default` from `image` to
    `predictions`, built-in operators only, and metadata for MediaPipe and
    Android.

    Args:
        model: A model that `deploy` accepts, for images of a static height and
            width; a model that `deploy` returned for this format; or any
            classifier from `with_pixel_range`.
        path: Path of the file to write, ending in `.tflite`. It appears when
            it is complete.
        quantization: `"float32"`; `"float16"`, with weights stored in float16;
            `"dynamic"`, with the weights of the 1 x 1 convolutions stored and
            multiplied in 8 bits, and other weights stored in float16; `"int4"`,
            the same with 4 bits for the weights of the 1 x 1 convolutions; or
            `"int8"`, with all blocks computed in 8 bits and uint8 input.
        calibration_images: For `"int8"`, real images that determine the ranges
            of the activations: an array of pixels in [0, 255] of shape (number,
            height, width, channels). At least `MIN_CALIBRATION_IMAGES`
            different images; a few hundred are better.
        output_dtype: `"float32"`, or for `"int8"` also `"uint8"`, which rounds
            probabilities to 1/256.
        class_names: Class names in the order of the outputs, stored in the
            file, or `None`.
        description: String, a description of the model, stored in the file.
        crop_fraction: Fraction of an image's shorter side that is kept for
            evaluation, stored in the file, or `None`.
        orientation: `"exif"` or `"stored"`, as for `data.decode_image`, stored
            in the file, or `None`.
        class_activation_maps: Whether to add a second output of that name, of
            shape (1, rows, columns, classes), in patches. It shows where in the
            image the model sees each class. The logits are its mean over rows
            and columns. MediaPipe's ImageClassifier does not support such a
            file.
        plain: Whether to use TensorFlow's converter and quantization unchanged,
            as a baseline. This supports any Keras model with one image input
            and one output.
        overwrite: Whether to replace an existing file.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`.
        FileNotFoundError: If its directory doesn't exist.
        ImportError: If `ai-edge-litert` or `litert-quantizer` is not
            installed.
        OSError: If it can't be written, or if the system's temporary folder is
            full.
        ValueError: If an argument is invalid, or if the model needs an operator
            that is not built into LiteRT.

    Example:

    ```python
    export_tflite(model, "model.tflite", class_names=names)
    export_tflite(
        model,
        "model_int8.tflite",
        quantization="int8",
        calibration_images=images[:200],
    )
    ```
    """
    if quantization is None:
        warn_renamed("quantization=None", 'quantization="float32"')
        quantization = "float32"
    check_backend("TFLite files")
    check_destination(path, (".tflite",), overwrite)
    shape = static_shape(model)
    check_pixels(model)
    plain = plain or has_pixel_range(model)
    if not plain:
        check_convmixer(model)
    _check_quantization(quantization, output_dtype, plain)
    if class_activation_maps and (plain or output_dtype != "float32"):
        raise ValueError(
            "Argument `class_activation_maps` needs plain=False and outputs in "
            f"float32. Received: plain={plain}, "
            f"output_dtype={output_dtype!r}"
        )
    if quantization == "int8":
        calibration_images = check_calibration(calibration_images, shape)
    elif calibration_images is not None:
        raise ValueError(
            'Argument `calibration_images` needs `quantization="int8"`. '
            f"Received: quantization={quantization!r}"
        )
    if class_names is not None:
        check_class_names(class_names, model.output_shape[-1])
        class_names = tuple(class_names)
    check_crop_fraction(crop_fraction)
    check_orientation(orientation)
    deployment = getattr(model, "deployment", None)
    metadata = TFLiteMetadata(
        deployment.source if deployment else model.name,
        description=description,
        class_names=class_names,
        crop_fraction=crop_fraction,
        orientation=orientation,
    )
    if plain:
        content = _convert(
            in_float32(model), shape, quantization, calibration_images
        )
    else:
        deployed = _deployed(model, TARGETS[quantization])
        if class_activation_maps:
            deployed = add_activation_maps(deployed)
        if quantization in ("float32", "float16"):
            content = _convert(deployed, shape, quantization)
        else:
            content = _convert(deployed, shape)
            content = quantize(
                content, quantization, calibration_images, output_dtype
            )
    tflite = unpack(content)
    _check_operators(tflite)
    _shorten_names(tflite)
    content = add_metadata(pack(tflite), metadata)
    with replaced(path) as unfinished, open(unfinished, "wb") as file:
        file.write(content)


def _deployed(model, target):
    deployment = getattr(model, "deployment", None)
    if deployment is None:
        return deploy(model, target)
    # Float files can also have normalizations as layers.
    fitting = {target, "litert_dynamic"} if target == "litert" else {target}
    if deployment.target not in fitting:
        raise ValueError(
            f"The model must be deployed for {target!r} or not deployed. "
            f"Received: a model deployed for {deployment.target!r}"
        )
    return model


def _check_quantization(quantization, output_dtype, plain):
    known = PLAIN_QUANTIZATIONS if plain else QUANTIZATIONS
    if quantization not in known:
        raise ValueError(
            f"Argument `quantization` must be one of {known}. "
            f"Received: quantization={quantization!r}, plain={plain}"
        )
    if output_dtype == "uint8" and quantization == "int8" and not plain:
        return
    if output_dtype != "float32":
        raise ValueError(
            'Argument `output_dtype` must be "float32". With '
            '`quantization="int8"` and without `plain`, it may be "uint8". '
            f"Received: output_dtype={output_dtype!r}"
        )


def static_shape(model):
    """Returns (height, width, channels). They must all be known."""
    shape = model.input_shape
    if not isinstance(shape, tuple) or None in shape[1:]:
        raise ValueError(
            "The model must have one input of static height and width, for "
            "example with `input_shape=(224, 224, 3)`. Received: "
            f"input_shape={shape}"
        )
    return shape[1:]


def check_calibration(images, shape):
    """Checks the calibration images of int8 files.

    Args:
        images: The user's argument, or `None`.
        shape: Tuple, (height, width, channels) of the model's images.

    Returns:
        The images, a float32 array.

    Raises:
        ValueError: If there are none or too few, if they have another shape, or
            if they are not pixels.
    """
    received = "none" if images is None else f"shape {np.shape(images)}"
    if images is None or np.shape(images)[1:] != shape or not len(images):
        raise ValueError(
            'Quantization "int8" needs `calibration_images`, an array of shape '
            f"(number, {', '.join(map(str, shape))}). Received: {received}"
        )
    images = np.asarray(images, "float32")
    if not 1 < images.max() <= 255 or images.min() < 0:
        raise ValueError(
            "Argument `calibration_images` must be pixels in [0, 255]. "
            f"Received: values from {images.min():g} to {images.max():g}"
        )
    distinct = len({image.tobytes() for image in images})
    if distinct < MIN_CALIBRATION_IMAGES:
        raise ValueError(
            "Argument `calibration_images` must have at least "
            f"{MIN_CALIBRATION_IMAGES} different images. Received: "
            f"{len(images)}, of which {distinct} are different"
        )
    return images


def _convert(model, shape, quantization="float32", images=None):
    """Converts a model to bytes with TensorFlow's converter."""
    with tempfile.TemporaryDirectory() as directory:
        with system_errors(f"to the temporary folder `{directory}`"):
            _export_saved_model(model, directory, shape)
        converter = tf.lite.TFLiteConverter.from_saved_model(directory)
        if quantization != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantization == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantization == "int8":
            _calibrate(converter, images)
        try:
            with warnings.catch_warnings():
                # The converter's own calibration still uses it.
                warnings.filterwarnings("ignore", ".*tf.lite.Interpreter is d")
                return converter.convert()
        except Exception as error:  # The converter's type is not public.
            raise ValueError(
                "TensorFlow's converter cannot convert the model to built-in "
                f"operators: {error}"
            ) from error


def _check_operators(tflite):
    schema = litert_module("schema_py_generated")
    operators = schema.BuiltinOperator
    # TensorFlow operators are custom operators. If the converter does not
    # freeze the weights, it leaves variables, which are empty in a new process.
    wrong = {operators.CUSTOM, operators.VAR_HANDLE, operators.READ_VARIABLE}
    found = {code.builtinCode for code in tflite.operatorCodes}
    if found & wrong:
        names = [n for n, c in vars(operators).items() if c in found & wrong]
        raise ValueError(
            "The file would need operators that are not built into LiteRT, or "
            f"have no weights: {', '.join(names)}"
        )


def _shorten_names(tflite):
    """Shortens tensor names, which list all fused operators."""
    used = set()
    for tensor in tflite.subgraphs[0].tensors:
        short = tensor.name.partition(b";")[0]
        if short not in used:
            tensor.name = short
        used.add(tensor.name)


def _export_saved_model(model, directory, shape):
    def serve(image):
        outputs = model(image, training=False)
        named = isinstance(outputs, dict)
        return outputs if named else {"predictions": outputs}

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serving_default",
        serve,
        [tf.TensorSpec((1, *shape), tf.float32, name="image")],
    )
    archive.write_out(directory, verbose=False)


def _calibrate(converter, images):
    # A black and a white image make the input's scale exactly 1 and its zero
    # point 0, so that a pixel equals its quantized value.
    extremes = np.stack(
        [np.zeros_like(images[0]), np.full_like(images[0], 255)]
    )

    def representative_dataset():
        for image in np.concatenate([extremes, images]):
            yield {"image": image[None]}

    converter.representative_dataset = representative_dataset
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32
