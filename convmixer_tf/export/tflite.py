"""TFLite files, in float or quantised to 8 bits."""

import tempfile
import warnings

import keras
import numpy as np
import tensorflow as tf

from convmixer_tf.export.preparation import check_backend
from convmixer_tf.export.preparation import in_float32
from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced

QUANTIZATIONS = (None, "int8")


def export_tflite(
    model, path, *, quantization=None, calibration_images=None, overwrite=False
):
    """Exports a model as a TFLite file of one image, built-in operators only.

    Args:
        model: Keras model that takes one batch of pixels in [0, 255], of a
            static height and width.
        path: Path of the file to write, ending in `.tflite`. It appears when
            it is complete.
        quantization: `None` keeps float32. `"int8"` quantises weights and
            activations to 8 bits; the file then takes uint8 pixels as they
            are, and returns float32.
        calibration_images: Real images, an array of shape (number, height,
            width, channels), of pixels in [0, 255], from which `"int8"` takes
            the ranges of the activations. A hundred distinct ones will do.
        overwrite: Whether to replace an existing file.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`.
        FileNotFoundError: If its directory doesn't exist.
        ValueError: If an argument is invalid.

    Example:

    ```python
    export_tflite(model, "model.tflite")
    export_tflite(
        model,
        "model_int8.tflite",
        quantization="int8",
        calibration_images=images[:100],
    )
    ```
    """
    check_backend("TFLite files")
    check_destination(path, (".tflite",), overwrite)
    shape = _static_shape(model)
    if quantization not in QUANTIZATIONS:
        raise ValueError(
            f"Argument `quantization` must be one of {QUANTIZATIONS}. "
            f"Received: quantization={quantization!r}"
        )
    if quantization == "int8":
        calibration_images = _check_calibration(calibration_images, shape)
    elif calibration_images is not None:
        raise ValueError(
            'Argument `calibration_images` needs `quantization="int8"`. '
            f"Received: quantization={quantization!r}"
        )
    with tempfile.TemporaryDirectory() as directory:
        _export_saved_model(in_float32(model), directory, shape)
        converter = tf.lite.TFLiteConverter.from_saved_model(directory)
        if quantization == "int8":
            _quantize(converter, calibration_images)
        with warnings.catch_warnings():
            # The converter's own calibration uses it still.
            warnings.filterwarnings("ignore", ".*tf.lite.Interpreter is depr")
            content = converter.convert()
    with replaced(path) as unfinished, open(unfinished, "wb") as file:
        file.write(content)


def _static_shape(model):
    shape = model.input_shape
    if not isinstance(shape, tuple) or None in shape[1:]:
        raise ValueError(
            "The model must have one input of a static height and width, "
            "such as `input_shape=(224, 224, 3)` gives it. "
            f"Received: input_shape={shape}"
        )
    return shape[1:]


def _check_calibration(images, shape):
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
    return images


def _export_saved_model(model, directory, shape):
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serving_default",
        lambda image: {"predictions": model(image, training=False)},
        [tf.TensorSpec((1, *shape), tf.float32, name="image")],
    )
    archive.write_out(directory, verbose=False)


def _quantize(converter, images):
    # With an all-black and an all-white image among them, the input's scale
    # is exactly 1 and its zero point 0: a pixel is its own quantised value.
    extremes = np.stack(
        [np.zeros_like(images[0]), np.full_like(images[0], 255)]
    )

    def representative_dataset():
        for image in np.concatenate([extremes, images]):
            yield {"image": image[None]}

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative_dataset
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32
