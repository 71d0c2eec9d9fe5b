"""Writes the model folder of the web page in `export/web`."""

import json
import os
from collections.abc import Sequence

import keras
import numpy as np

from convmixer_tf.data.cropping import CROP_FRACTION
from convmixer_tf.data.decoding import ORIENTATION
from convmixer_tf.data.validation import check_range
from convmixer_tf.export.preparation import classifier_of
from convmixer_tf.export.tflite import export_tflite
from convmixer_tf.files import PathLike
from convmixer_tf.files import check_folder_destination
from convmixer_tf.files import replaced_folder
from convmixer_tf.validation import check_orientation

MODEL_FILE = "model.tflite"
DESCRIPTION_FILE = "model.json"
_PROBABILITIES = (keras.activations.softmax, keras.activations.sigmoid)


def export_web(
    model: keras.Model,
    path: PathLike,
    class_names: Sequence[str],
    *,
    quantization: str = "float32",
    calibration_images: np.ndarray | None = None,
    description: str = "",
    crop_fraction: float = CROP_FRACTION,
    orientation: str = ORIENTATION,
    overwrite: bool = False,
) -> None:
    """Writes a model folder for the web page in `export/web`.

    It holds `model.tflite`, with class activation maps as a second output, and
    `model.json` with name, description, image size in pixels, crop fraction,
    orientation and class names.

    Args:
        model: A classifier from `ConvMixer` or a variant, for square RGB images
            of a static size.
        path: Path of the folder to write. It appears when it is complete.
        class_names: Class names in the order of the outputs. For a single
            output, the name of its class, or the names of the negative and the
            positive class.
        quantization: As in `export_tflite`.
        calibration_images: As in `export_tflite`.
        description: String, a description of the model that the page shows.
        crop_fraction: Fraction of an image's shorter side that is kept for
            evaluation, in (0, 1].
        orientation: How the page reads image files, `"exif"` or `"stored"` as
            in `data.decode_image`.
        overwrite: Whether to replace an existing model folder.

    Raises:
        FileExistsError: If the folder exists and `overwrite` is `False`, or if
            it is not a model folder.
        FileNotFoundError: If its parent directory doesn't exist.
        ImportError: As for `export_tflite`.
        ValueError: As for `export_tflite`, or if the images are not square RGB
            images, the model does not return probabilities or is a softmax of a
            single output, or `orientation` is neither of the two.

    Example:

    ```python
    export_web(model, "export/web/dist/model", names, quantization="dynamic")
    ```
    """
    check_folder_destination(path, DESCRIPTION_FILE, overwrite)
    check_range("crop_fraction", crop_fraction, 0.01, 1)
    check_orientation(orientation)
    height, width, channels = model.input_shape[1:]
    if not height or height != width or channels != 3:
        raise ValueError(
            "The page needs a model of square images of a static size with "
            "three channels. Received: a model with "
            f"input_shape={model.input_shape}"
        )
    if not class_names:
        raise ValueError(
            "The page needs the names of the classes. "
            f"Received: class_names={class_names!r}"
        )
    classifier = classifier_of(model)
    if classifier and classifier.activation not in _PROBABILITIES:
        raise ValueError(
            "The page needs probabilities, but the model returns logits. Build "
            "it with classifier_activation='softmax' or 'sigmoid'. "
            f"Received: {classifier.activation!r}"
        )
    if model.output_shape[-1] == 1 and _is_softmax(classifier):
        raise ValueError(
            "The softmax of a single output is always 1. Build the model with "
            "classifier_activation='sigmoid'."
        )
    names = [*class_names]
    if model.output_shape[-1] == 1 and len(names) <= 2:
        class_names = names[-1:]  # The file has a name for each output.
        names = names if len(names) == 2 else [f"not {names[0]}", *names]
    known = {
        "name": model.name,
        "description": description,
        "image_size": height,
        "crop_fraction": crop_fraction,
        "orientation": orientation or ORIENTATION,
        "class_names": names,
    }
    with replaced_folder(path) as unfinished:
        export_tflite(
            model,
            os.path.join(unfinished, MODEL_FILE),
            quantization=quantization,
            calibration_images=calibration_images,
            class_names=class_names,
            description=description,
            crop_fraction=crop_fraction,
            orientation=orientation,
            class_activation_maps=True,
        )
        file = os.path.join(unfinished, DESCRIPTION_FILE)
        with open(file, "w", encoding="utf-8") as stream:
            json.dump(known, stream, ensure_ascii=False, indent=1)


def _is_softmax(classifier):
    return classifier and classifier.activation is keras.activations.softmax
