"""TFLite files, in float or quantized."""

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

# Number formats, and what `deploy` is asked for.
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
    """Exports a classifier as a TFLite file of one image.

    A ConvMixer is rewritten by `deploy` for LiteRT. Any other model is
    converted as it is, after `with_pixel_range` has stated its pixels. The
    file takes pixels in [0, 255] as they are, has a signature
    `serving_default` from `image` to `predictions`, built-in operators only,
    and metadata that MediaPipe and Android read.

    Args:
        model: What `deploy` takes, for images of a static height and width;
            what `deploy` made of it for this format; or any classifier that
            `with_pixel_range` returned.
        path: Path of the file to write, ending in `.tflite`. It appears when
            it is complete.
        quantization: `"float32"`. `"float16"` stores the weights so.
            `"dynamic"` stores those of the 1 x 1 convolutions in 8 bits, the
            others as float16, and multiplies the former in 8 bits. `"int4"`
            is the same with 4 bits for the weights of the 1 x 1 convolutions.
            `"int8"` computes all blocks in 8 bits; the file takes uint8.
        calibration_images: Real images, an array of shape (number, height,
            width, channels), of pixels in [0, 255], from which `"int8"` takes
            the ranges of the activations. At least `MIN_CALIBRATION_IMAGES`
            that differ; a few hundred are better.
        output_dtype: `"float32"`, or for `"int8"` also `"uint8"`, which
            rounds probabilities to 1/256.
        class_names: Names of the classes in the order of the outputs, which
            go into the file, or `None`.
        description: String, what the model does, which goes into the file.
        crop_fraction: Fraction of an image's shorter side that the model is
            evaluated on, which goes into the file; `None` does not say it.
        orientation: `"exif"` or `"stored"`, as for `data.decode_image`, which
            goes into the file; `None` does not say it.
        class_activation_maps: Whether the file has a second output of that
            name, of shape (1, rows, columns, classes), in patches: where in
            the image the model sees each class. Their mean over rows and
            columns are the logits. MediaPipe's ImageClassifier does not take
            such a file.
        plain: Whether to leave the model and the quantization to TensorFlow's
            converter, which is what the others are to be compared with. Any
            Keras model of one image and one output will do then.
        overwrite: Whether to replace an existing file.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`.
        FileNotFoundError: If its directory doesn't exist.
        ImportError: If `ai-edge-litert` or `litert-quantizer` is not
            installed.
        OSError: If it can't be written, or the system's folder for temporary
            files is full.
        ValueError: If an argument is invalid, or if the model needs an
            operator that is not built into LiteRT.

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
            "Argument `class_activation_maps` needs the deployed model and "
            f"outputs in float32. Received: plain={plain}, "
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
    # Float files can have normalizations as layers, too.
    fitting = {target, "litert_dynamic"} if target == "litert" else {target}
    if deployment.target not in fitting:
        raise ValueError(
            f"The file needs a model that was deployed for {target!r}, or one "
            f"that was not deployed. Received: one for {deployment.target!r}"
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
            'Argument `output_dtype` must be "float32", or for '
            '`quantization="int8"` and not `plain` "uint8". '
            f"Received: output_dtype={output_dtype!r}"
        )


def static_shape(model):
    """Returns (height, width, channels); `ValueError` if one is open."""
    shape = model.input_shape
    if not isinstance(shape, tuple) or None in shape[1:]:
        raise ValueError(
            "The model must have one input of a static height and width, "
            "such as `input_shape=(224, 224, 3)` gives it. "
            f"Received: input_shape={shape}"
        )
    return shape[1:]


def check_calibration(images, shape):
    """Checks the images that int8 files take their ranges from.

    Args:
        images: What the user gave, or `None`.
        shape: Tuple, (height, width, channels) of the model's images.

    Returns:
        The images, a float32 array.

    Raises:
        ValueError: If they are none, of another shape, no pixels, or too few.
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
            "Argument `calibration_images` must be of pixels in [0, 255]. "
            f"Received: values from {images.min():g} to {images.max():g}"
        )
    distinct = len({image.tobytes() for image in images})
    if distinct < MIN_CALIBRATION_IMAGES:
        raise ValueError(
            "Argument `calibration_images` must have at least "
            f"{MIN_CALIBRATION_IMAGES} images that differ. Received: "
            f"{len(images)}, of which {distinct} differ"
        )
    return images


def _convert(model, shape, quantization="float32", images=None):
    """Converts a model with TensorFlow's converter, to bytes."""
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
                # The converter's own calibration uses it still.
                warnings.filterwarnings("ignore", ".*tf.lite.Interpreter is d")
                return converter.convert()
        except Exception as error:  # The converter's own is not public.
            raise ValueError(
                "TensorFlow's converter can't make built-in operators of the "
                f"model: {error}"
            ) from error


def _check_operators(tflite):
    schema = litert_module("schema_py_generated")
    operators = schema.BuiltinOperator
    # TensorFlow's operators are custom ones. A converter that does not freeze
    # the weights leaves variables, which are empty in a new process.
    wrong = {operators.CUSTOM, operators.VAR_HANDLE, operators.READ_VARIABLE}
    found = {code.builtinCode for code in tflite.operatorCodes}
    if found & wrong:
        names = [n for n, c in vars(operators).items() if c in found & wrong]
        raise ValueError(
            "The file would need what is not built into LiteRT, or hold no "
            f"weights: {', '.join(names)}"
        )


def _shorten_names(tflite):
    """Cuts tensors' names, each a list of all operators that became one."""
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
    # With an all-black and an all-white image among them, the input's scale
    # is exactly 1 and its zero point 0: a pixel is its own quantized value.
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
