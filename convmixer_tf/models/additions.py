"""What a model's file says beside the model: classes, crop, what white is."""

import json
import os
import pathlib
import zipfile

LABELS_FILE = "labels.txt"
# Within .keras and .tflite files, and in a SavedModel's folder for what is not
# the model, which TensorFlow Serving leaves alone.
EVALUATION_FILE = "evaluation.json"
_EXTRA_ASSETS = "assets.extra"


def evaluation_text(crop_fraction):
    """Encodes what `EVALUATION_FILE` holds."""
    return json.dumps({"crop_fraction": crop_fraction})


def parse_evaluation(text):
    """Decodes the crop that `EVALUATION_FILE` holds.

    Args:
        text: String or bytes.

    Returns:
        Float, the fraction of an image's shorter side; `None` if it only says
        what white is.

    Raises:
        ValueError: If it says anything else.
    """
    try:
        said = json.loads(text)
        if "crop_fraction" not in said and said["max_pixel"]:
            return None
        if 0.01 <= said["crop_fraction"] <= 1:
            return float(said["crop_fraction"])
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(
        f"`{EVALUATION_FILE}` must hold a `crop_fraction`, a number from "
        f"0.01 to 1. Received: {text!r:.80}"
    )


def write_evaluation(directory, crop_fraction, max_pixel=255):
    """Adds to a SavedModel's folder what images are to be for it.

    Args:
        directory: Path of the folder.
        crop_fraction: Fraction of an image's shorter side, or `None`, which
            is not said.
        max_pixel: What white is; 255 is not said.
    """
    said = {}
    if crop_fraction is not None:
        said["crop_fraction"] = crop_fraction
    if max_pixel != 255:
        said["max_pixel"] = max_pixel
    if not said:
        return
    folder = pathlib.Path(directory, _EXTRA_ASSETS)
    folder.mkdir()
    text = json.dumps(said)
    (folder / EVALUATION_FILE).write_text(text, encoding="utf-8")


def read_max_pixel(path):
    """Reads from a SavedModel's folder what is white in its images.

    Args:
        path: Path of the folder.

    Returns:
        Integer, 255 if the folder doesn't say it.

    Raises:
        ValueError: If what it says is neither 255 nor 1.
    """
    text = _read_text(path, EVALUATION_FILE)
    if text is None:
        return 255
    parse_evaluation(text)
    white = json.loads(text).get("max_pixel", 255)
    if white not in (1, 255):
        raise ValueError(
            f"`{EVALUATION_FILE}` must hold a `max_pixel` of 1 or 255. "
            f"Received: {text!r:.80}"
        )
    return white


def read_class_names(path):
    """Reads the names of the classes from a model's file.

    Args:
        path: Path of a `.keras` file.

    Returns:
        Tuple of strings in the order of the outputs, or `None` if the file
        has none.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    text = _read_text(path, LABELS_FILE)
    return None if text is None else tuple(text.splitlines())


def read_crop_fraction(path):
    """Reads from a model's file how its images are cropped to evaluate it.

    Args:
        path: Path of a `.keras` or `.tflite` file, or of a SavedModel's
            folder.

    Returns:
        Float, the fraction of an image's shorter side, or `None` if the file
        doesn't say it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If what it says is no such fraction.
    """
    text = _read_text(path, EVALUATION_FILE)
    return None if text is None else parse_evaluation(text)


def _read_text(path, name):
    """Reads what was added to a model, or `None`."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is nothing at `{os.fspath(path)}`.")
    if os.path.isdir(path):
        file = pathlib.Path(path, _EXTRA_ASSETS, name)
        return file.read_text(encoding="utf-8") if file.is_file() else None
    if not zipfile.is_zipfile(path):  # TFLite without what is zipped behind.
        return None
    with zipfile.ZipFile(path) as archive:
        if name not in archive.namelist():
            return None
        return archive.read(name).decode("utf-8")
