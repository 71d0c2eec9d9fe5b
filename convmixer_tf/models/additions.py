"""Metadata in a model file: class names and how images are read."""

import dataclasses
import json
import os
import pathlib
import zipfile

from convmixer_tf.files import PathLike
from convmixer_tf.files import parse_lines
from convmixer_tf.validation import ORIENTATIONS

LABELS_FILE = "labels.txt"
# Stored inside .keras and .tflite files, and in the SavedModel folder for extra
# files, which TensorFlow Serving ignores.
EVALUATION_FILE = "evaluation.json"
_EXTRA_ASSETS = "assets.extra"


@dataclasses.dataclass(frozen=True)
class ImageReading:
    """How image files are turned into model inputs.

    Attributes:
        crop_fraction: Fraction of an image's shorter side that is kept, or
            `None` if the file doesn't say it.
        orientation: `"exif"` or `"stored"`, or `None` if the file doesn't say.
            Files of early versions don't.
        max_pixel: Value of a white pixel, 1 or 255.
    """

    crop_fraction: float | None = None
    orientation: str | None = None
    max_pixel: int = 255

    def text(self):
        """Returns the text of `EVALUATION_FILE`, empty if nothing is known."""
        known = {k: v for k, v in vars(self).items() if v is not None}
        if self.max_pixel == 255:
            del known["max_pixel"]
        return json.dumps(known) if known else ""


def parse_reading(text):
    """Parses the text of `EVALUATION_FILE`.

    Args:
        text: String or bytes.

    Returns:
        An `ImageReading`.

    Raises:
        ValueError: If a value is missing or out of range.
    """
    try:
        known = json.loads(text)
        names = [x.name for x in dataclasses.fields(ImageReading)]
        reading = ImageReading(**{k: known[k] for k in names if k in known})
        crop = reading.crop_fraction
        if (
            set(known) & {*names}
            and (crop is None or 0.01 <= crop <= 1)
            and reading.orientation in (None, *ORIENTATIONS)
            and reading.max_pixel in (1, 255)
        ):
            return reading
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"`{EVALUATION_FILE}` must hold a `crop_fraction` from 0.01 to 1, an "
        f"`orientation` of {' or '.join(ORIENTATIONS)}, or a `max_pixel` of 1 "
        f"or 255. Received: {text!r:.80}"
    )


def write_reading(directory, reading):
    """Adds an `ImageReading` to the folder of a SavedModel.

    Args:
        directory: Path of the folder.
        reading: An `ImageReading`. If it has no values, nothing is written.
    """
    if reading.text():
        folder = pathlib.Path(directory, _EXTRA_ASSETS)
        folder.mkdir()
        (folder / EVALUATION_FILE).write_text(reading.text(), encoding="utf-8")


def read_reading(path):
    """Reads from a model file how image files are turned into its inputs.

    Args:
        path: Path of a `.keras` or `.tflite` file, or of a SavedModel's
            folder.

    Returns:
        An `ImageReading`, without the values that the file doesn't have.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a value in it is out of range.
    """
    text = _read_text(path, EVALUATION_FILE)
    return ImageReading() if text is None else parse_reading(text)


def read_class_names(path: PathLike) -> tuple[str, ...] | None:
    """Reads the names of the classes from a model's file.

    Args:
        path: Path of a `.keras` file.

    Returns:
        Tuple of strings in the order of the outputs, or `None` if the file
        has none.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If they are not one name a line; see `files.read_lines`.
    """
    text = _read_text(path, LABELS_FILE)
    if text is None:
        return None
    return parse_lines(text, f"{os.fspath(path)}, {LABELS_FILE}")


def read_crop_fraction(path: PathLike) -> float | None:
    """Reads from a model file how evaluation images are cropped.

    Args:
        path: As for `read_orientation`.

    Returns:
        Float, the fraction of an image's shorter side, or `None` if the file
        doesn't say.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the value is not such a fraction.
    """
    return read_reading(path).crop_fraction


def read_orientation(path: PathLike) -> str | None:
    """Reads from a model file whether images are rotated as EXIF says.

    Args:
        path: Path of a `.keras` or `.tflite` file, or of a SavedModel's
            folder.

    Returns:
        `"exif"` or `"stored"`, as in `data.decode_image`, or `None` if the file
        doesn't say.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the value is neither of the two.
    """
    return read_reading(path).orientation


def _read_text(path, name):
    """Returns the bytes of a file that was added to a model, or `None`."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"Path `{os.fspath(path)}` does not exist.")
    if os.path.isdir(path):
        file = pathlib.Path(path, _EXTRA_ASSETS, name)
        return file.read_bytes() if file.is_file() else None
    if not zipfile.is_zipfile(path):  # TFLite without metadata.
        return None
    with zipfile.ZipFile(path) as archive:
        if name not in archive.namelist():
            return None
        return archive.read(name)
