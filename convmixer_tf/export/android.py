"""Writes the assets of the Android app in `export/android`."""

import json
import os
import pathlib
import shutil
import struct
import zlib

import numpy as np
import tensorflow as tf

from convmixer_tf.data import decode_image
from convmixer_tf.data.cropping import CROP_FRACTION
from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.data.decoding import ORIENTATION
from convmixer_tf.data.validation import check_crop_fraction
from convmixer_tf.export.litert import LiteRTModel
from convmixer_tf.export.metadata import read_metadata
from convmixer_tf.export.tflite_model import describe_tflite
from convmixer_tf.export.tflite_model import ends_in_probabilities
from convmixer_tf.export.tflite_model import last_operators
from convmixer_tf.export.tflite_model import unpack
from convmixer_tf.files import PathLike
from convmixer_tf.files import check_folder_destination
from convmixer_tf.files import replaced_folder
from convmixer_tf.validation import check_orientation
from convmixer_tf.validation import check_positive_integer

MODEL_FILE = "model.tflite"
MODEL_CARD = f"{MODEL_FILE}.md"
DESCRIPTION_FILE = "model.json"
GOLDEN_FILE = "golden.json"
GOLDEN_IMAGE = "golden.png"
GOLDEN_PIXELS = "golden_pixels.png"

# Maximum side of the app's test image, in pixels.
_MAX_SIDE = 1024

# EXIF's: the image is stored with its left side at the bottom.
_GOLDEN_ORIENTATION = 6

# Tolerance of a score compared with LiteRT on an x86 processor. On the same
# pixels, the WebAssembly build differs by 4e-7 in float32 and 0.012 in int8
# (export/results/web.json). GPUs compute in float16; none was measured.
_TOLERANCES = {
    "float32": {"cpu": 0.01, "gpu": 0.05},
    "float16": {"cpu": 0.01, "gpu": 0.05},
}
_QUANTIZED_TOLERANCES = {"cpu": 0.05, "gpu": 0.1}


def export_android(
    path: PathLike,
    folder: PathLike,
    image_path: PathLike,
    *,
    crop_fraction: float | None = None,
    orientation: str | None = None,
    top: int = 5,
    overwrite: bool = False,
) -> dict:
    """Writes the assets of the Android app in `export/android`.

    The folder holds the TFLite file; its model card `FILE.md`, if there is one
    beside it, as from `export/to_tflite.py`; `model.json` with name,
    description, image size in pixels, crop fraction and orientation; and the
    data of the app's self-test. That is an image, the pixels that the model
    gets, and `golden.json` with the top classes that LiteRT computes here and
    the tolerances for the phone. A single output is a binary classifier with
    the classes `not name` and `name`.

    Args:
        path: Path of a TFLite classifier with metadata and class names, such as
            from `export_tflite`.
        folder: Path of the folder to write. It appears when it is complete.
        image_path: Path of an image that the model classifies confidently.
        crop_fraction: Fraction of an image's shorter side that is kept for
            evaluation, in (0, 1]. Defaults to the file's value, or else to
            0.96.
        orientation: How the app reads image files, `"exif"` or `"stored"` as in
            `data.decode_image`. Defaults to the file's value, or else to
            `"exif"`.
        top: Integer, the number of top classes to compare.
        overwrite: Whether to replace an existing folder of assets.

    Returns:
        Dictionary, the content of `golden.json`: `"top"`, a list of
        dictionaries of class, index and score, the top class first; and
        `"tolerances"`.

    Raises:
        FileExistsError: If the folder exists and `overwrite` is `False`, or if
            it is not a folder of assets.
        FileNotFoundError: If the file, the image or the parent directory of the
            folder doesn't exist.
        ImportError: If `ai-edge-litert` is not installed.
        ValueError: If the file is not such a classifier, the image can't be
            read, or the model does not classify it confidently.

    Example:

    ```python
    assets = "export/android/app/src/main/assets"
    export_android("model.tflite", assets, "photo.jpg")
    ```
    """
    check_folder_destination(folder, DESCRIPTION_FILE, overwrite)
    check_crop_fraction(crop_fraction)
    check_orientation(orientation)
    check_positive_integer("top", top)
    metadata, size, quantization = _inspect(path)
    crop_fraction = crop_fraction or metadata.crop_fraction or CROP_FRACTION
    orientation = orientation or metadata.orientation or ORIENTATION
    image = _read_image(image_path, orientation)
    pixels = resize_and_center_crop(image, size, crop_fraction)
    likeliest = _likeliest(path, pixels, metadata.class_names)
    tolerances = _TOLERANCES.get(quantization, _QUANTIZED_TOLERANCES)
    _check_certainty(likeliest[:2], tolerances["gpu"], image_path)
    golden = {"top": likeliest[:top], "tolerances": tolerances}
    description = {
        "name": metadata.name,
        "description": metadata.description,
        "image_size": size,
        "crop_fraction": crop_fraction,
        "orientation": orientation,
    }
    with replaced_folder(folder) as unfinished:
        shutil.copyfile(path, os.path.join(unfinished, MODEL_FILE))
        if os.path.exists(card := f"{os.fspath(path)}.md"):
            shutil.copyfile(card, os.path.join(unfinished, MODEL_CARD))
        for name, value in (
            (DESCRIPTION_FILE, description),
            (GOLDEN_FILE, golden),
        ):
            file = os.path.join(unfinished, name)
            with open(file, "w", encoding="utf-8") as stream:
                json.dump(value, stream, ensure_ascii=False, indent=1)
        for name, content in (
            (GOLDEN_IMAGE, _encode_turned(image, orientation)),
            (GOLDEN_PIXELS, tf.io.encode_png(pixels).numpy()),
        ):
            pathlib.Path(unfinished, name).write_bytes(content)
    return golden


def _inspect(path):
    """Checks a file. Returns metadata, image size and number format."""
    found = describe_tflite(path)
    shapes = {
        kind: [tuple(tensor["shape"]) for tensor in found[kind]]
        for kind in ("inputs", "outputs")
    }
    ((_, height, width, channels),) = shapes["inputs"]
    if height != width or channels != 3:
        raise ValueError(
            "The app needs a model of square images with three channels. "
            f"Received: `{path}`, which takes {shapes['inputs'][0]}"
        )
    if len(shapes["outputs"]) != 1 or len(shapes["outputs"][0]) != 2:
        raise ValueError(
            "The app needs a file with one output, a score for each class. "
            "Files with class activation maps are for the web page. Received: "
            f"`{path}`, with outputs of shapes {shapes['outputs']}"
        )
    model = unpack(pathlib.Path(path).read_bytes())
    if shapes["outputs"][0][1] == 1 and "SOFTMAX" in last_operators(model):
        raise ValueError(
            f"The softmax of a single output is always 1: `{path}`. Build the "
            "model with classifier_activation='sigmoid'."
        )
    if not ends_in_probabilities(model):
        raise ValueError(
            f"The app needs probabilities, but `{path}` returns logits. Build "
            "the model with classifier_activation='softmax'."
        )
    return (
        _read_metadata(path, shapes["outputs"][0][1]),
        height,
        found["quantization"],
    )


def _read_metadata(path, classes):
    metadata = read_metadata(path)
    if metadata is None or metadata.class_names is None:
        lacking = "metadata" if metadata is None else "names of the classes"
        raise ValueError(
            f"`{path}` has no {lacking}. Export it with export/to_tflite.py "
            "and --labels, or with `export_tflite` and `class_names`."
        )
    if (set(metadata.mean), set(metadata.std)) != ({0.0}, {1.0}):
        raise ValueError(
            "The app needs a model that takes pixels in [0, 255]. The metadata "
            f"of `{path}` has mean={metadata.mean}, std={metadata.std}"
        )
    if len(metadata.class_names) != classes:
        raise ValueError(
            f"`{path}` has {classes} outputs, but {len(metadata.class_names)} "
            "class names."
        )
    return metadata


def _read_image(path, orientation):
    """Reads an image and downscales a large one."""
    try:
        image = decode_image(tf.io.read_file(os.fspath(path)), orientation)
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(
            f"The image `{path}` does not exist."
        ) from error
    except tf.errors.OpError as error:
        raise ValueError(
            f"`{path}` can't be read. Expected a JPEG, PNG, GIF or BMP image."
        ) from error
    sides = image.shape[:2]
    scale = min(_MAX_SIDE / max(sides), 1)
    if scale == 1:
        return image
    sides = [max(round(scale * side), 1) for side in sides]
    smaller = tf.image.resize(image, sides, method="area")
    return tf.cast(tf.round(smaller), tf.uint8)


def _encode_turned(image, orientation):
    """Encodes a rotated PNG with an EXIF orientation.

    With it, the phone's self-test checks that the app rotates images exactly
    when it should.
    """
    stored = np.rot90(image) if orientation == "exif" else image
    encoded = tf.io.encode_png(stored).numpy()
    # A TIFF structure with one entry: Orientation, a short integer.
    exif = b"eXIf" + struct.pack(
        *("<4sIHHHIHHI", b"II*\0", 8, 1),
        *(0x0112, 3, 1, _GOLDEN_ORIENTATION, 0, 0),
    )
    chunk = struct.pack(">I", len(exif) - 4) + exif
    chunk += struct.pack(">I", zlib.crc32(exif))
    start = 8 + 25  # After the signature and the header.
    return encoded[:start] + chunk + encoded[start:]


def _likeliest(path, pixels, names):
    """Lists all classes, the most probable first."""
    (scores,) = LiteRTModel(path).predict(pixels[None])
    if len(scores) == 1:
        scores = np.append(1 - scores, scores)
        names = (f"not {names[0]}", *names)
    return [
        {"class": names[i], "index": int(i), "score": float(scores[i])}
        for i in scores.argsort()[::-1]
    ]


def _check_certainty(best, tolerance, image_path):
    """Rejects an image that a faulty phone might classify correctly."""
    scores = [entry["score"] for entry in best] + [0.0]
    needed = 2 * tolerance
    if scores[0] - scores[1] < needed:
        raise ValueError(
            "The self-test needs an image that the model classifies "
            f"confidently, with the top class at least {needed:.0%} ahead of "
            f"the second. Received: `{image_path}`, {best}"
        )
