"""What the web page in `export/web` needs of a model."""

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
    """Writes the folder of a model for the web page in `export/web`.

    It holds `model.tflite`, with class activation maps as a second output, and
    `model.json`: name, description, side of the images in pixels, crop
    fraction, orientation and class names.

    Args:
        model: What `ConvMixer` or a variant built, with its classifier, for
            square RGB images of a static size.
        path: Path of the folder to write. It appears when it is complete.
        class_names: Names of the classes in the order of the outputs. For a
            single output, the name of its class, or the names of the opposite
            and of the class.
        quantization: As in `export_tflite`.
        calibration_images: As in `export_tflite`.
        description: String, what the model does, which the page shows.
        crop_fraction: Fraction of an image's shorter side that the model was
            evaluated on, in (0, 1].
        orientation: `"exif"` or `"stored"`, as for `data.decode_image`: how
            the page reads image files.
        overwrite: Whether to replace an existing folder of this kind.

    Raises:
        FileExistsError: If the folder exists and `overwrite` is `False`, or
            if it is of another kind.
        FileNotFoundError: If the directory it is to lie in doesn't exist.
        ImportError: As `export_tflite`.
        ValueError: As `export_tflite`, or if the images are not square or not
            in three colors, the model does not give probabilities or is a
            softmax of a single output, or `orientation` is neither of the two.

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
            "The page cuts images to squares of three colors, of one size. "
            f"Received: a model of input_shape={model.input_shape}"
        )
    if not class_names:
        raise ValueError(
            "The page needs the names of the classes. "
            f"Received: class_names={class_names!r}"
        )
    classifier = classifier_of(model)
    if classifier and classifier.activation not in _PROBABILITIES:
        raise ValueError(
            "The page shows probabilities, and the model gives logits. Build "
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
