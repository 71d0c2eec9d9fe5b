"""What the recipes for smaller files share: a model, images, files."""

import dataclasses
import gzip
import json
import pathlib

import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from absl import logging

from convmixer_tf import data
from convmixer_tf.export import artefact_card
from convmixer_tf.export import export_tflite
from convmixer_tf.export import verify
from convmixer_tf.files import replaced
from convmixer_tf.models import find_model
from convmixer_tf.models import load_model
from convmixer_tf.models import read_class_names
from convmixer_tf.models import read_crop_fraction
from convmixer_tf.preprocessing import match_classes

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "A ConvMixer's .keras file, or a run's folder.",
    required=True,
)
_DATA = flags.DEFINE_string(
    "data", None, "Folder, or name in tensorflow-datasets.", required=True
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where tensorflow-datasets keeps its data."
)
_TRAIN_SPLIT = flags.DEFINE_string("train_split", "train", "To train on.")
_EVAL_SPLIT = flags.DEFINE_string("eval_split", "validation", "To evaluate on.")
_CROP = flags.DEFINE_float(
    "crop_fraction",
    None,
    "Part of an image's side to keep. Default: the model's, or else "
    f"{data.CROP_FRACTION}.",
)
_TRAIN_IMAGES = flags.DEFINE_integer(
    "train_images", 5000, "The most images to train on; they are in memory.", 1
)
_CALIBRATION_IMAGES = flags.DEFINE_integer(
    "calibration_images", 300, "Others of them, for the ranges of int8.", 10
)
_EVAL_IMAGES = flags.DEFINE_integer(
    "eval_images", 2000, "The most images to evaluate on.", 10
)


@dataclasses.dataclass(frozen=True)
class Material:
    """What the flags name.

    Attributes:
        path: Path of the model's file.
        model: The `keras.Model`.
        names: Names of its classes, or `None`.
        train: uint8 array of pixels and integer array of labels, to train on.
        calibration: uint8 array of pixels, of other images.
        test: uint8 array of pixels and integer array of labels, of a third
            kind.
        crop_fraction: Part of an image's side that was kept.
    """

    path: str
    model: object
    names: tuple | None
    train: tuple
    calibration: np.ndarray
    test: tuple
    crop_fraction: float

    def counts(self):
        """Returns how many images there are of each kind."""
        return {
            "train": len(self.train[0]),
            "calibration": len(self.calibration),
            "test": len(self.test[0]),
        }


def begin(argv):
    """Checks the command line, and turns the log of ours on.

    Args:
        argv: What is left of the command line after the flags.

    Raises:
        app.UsageError: If that is anything.
    """
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    logging.set_verbosity(logging.INFO)
    here = pathlib.Path(__file__).parent
    logging.get_absl_handler().addFilter(
        lambda record: (
            pathlib.Path(record.pathname).parent == here
            or record.levelname != "INFO"
        )
    )
    tf.get_logger().setLevel("ERROR")


def read():
    """Reads what the flags name.

    Returns:
        A `Material`.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If the model does not take square photos of a static size,
            or does not know the data's classes.
    """
    path = find_model(_MODEL.value)
    model, names = load_model(path), read_class_names(path)
    crop = _CROP.value
    if crop is None:
        crop = read_crop_fraction(path) or data.CROP_FRACTION
    size = _side(model)
    splits = [
        data.open_dataset(_DATA.value, split, data_dir=_DATA_DIR.value)
        for split in (_TRAIN_SPLIT.value, _EVAL_SPLIT.value)
    ]
    counts = (
        _TRAIN_IMAGES.value + _CALIBRATION_IMAGES.value,
        _EVAL_IMAGES.value,
    )
    read_splits = []
    for dataset, count in zip(splits, counts, strict=True):
        outputs = match_classes(
            dataset.class_names, names, model.output_shape[-1]
        )
        images, labels = data.read_images(
            dataset, size, count, crop_fraction=crop
        )
        read_splits.append((images, outputs[labels]))
    (images, labels), test = read_splits
    kept = _choose(images, test[0])
    first = kept[: _CALIBRATION_IMAGES.value]
    rest = kept[_CALIBRATION_IMAGES.value :]
    if not len(rest):
        raise ValueError(
            f"--train_split must have more images than the {len(first)} that "
            f"the ranges are measured on. Received: {len(kept)}"
        )
    logging.info(
        "%d images to train on, %d to calibrate, %d to test",
        *(len(rest), len(first), len(test[0])),
    )
    train = (images[rest], labels[rest])
    return Material(path, model, names, train, images[first], test, crop)


def _side(model):
    shape = model.input_shape
    if len(shape) != 4 or None in shape[1:] or shape[1] != shape[2]:
        shape = (None, None, None, None)
    if shape[3] != 3:
        raise ValueError(
            "--model must take square images of a static size in 3 channels, "
            "which is what the data are made into. Received: a model with "
            f"input_shape={model.input_shape}"
        )
    return shape[1]


def _choose(images, others):
    """Lists those that are not among the others, in an order of no meaning."""
    known = {image.tobytes() for image in others}
    new = [i for i, image in enumerate(images) if image.tobytes() not in known]
    if len(new) < len(images):
        logging.warning(
            "%d images to train on are among those to evaluate on. They are "
            "left out.",
            len(images) - len(new),
        )
    return np.random.default_rng(0).permutation(new).astype(int)


def export(path, model, quantization, material):
    """Writes a TFLite file, replacing what is there.

    Args:
        path: Path of the file.
        model: The model, or what `fine_tune` made of it.
        quantization: As in `export_tflite`.
        material: A `Material`.
    """
    int8 = quantization == "int8"
    export_tflite(
        model,
        path,
        quantization=quantization,
        calibration_images=material.calibration if int8 else None,
        class_names=material.names,
        crop_fraction=material.crop_fraction,
        overwrite=True,
    )


def export_verified(path, model, quantization, material, plain):
    """Writes a TFLite file that appears only if it does what the model does.

    Args:
        path: Path of the file. Its report and model card appear beside it.
        model: What `fine_tune` returned.
        quantization: As in `export_tflite`.
        material: A `Material`.
        plain: Path of a `.tflite` file to compare the latency with.

    Returns:
        A `Report`.

    Raises:
        ValueError: If a limit is broken. Only the report stays, as
            `.failed.json`.
    """
    with replaced(path) as unfinished:
        export(unfinished, model, quantization, material)
        report = verify(
            model,
            unfinished,
            *material.test,
            plain=plain,
        )
        report = dataclasses.replace(report, artefact=str(path))
        if not report.passed:
            report.save(f"{path}.failed.json")
            raise ValueError(
                f"`{path}` was not written, since it is outside the limits: "
                f"{'; '.join(report.broken.values())}"
            )
    report.save(f"{path}.json")
    card = artefact_card(
        material.model,
        f"a TFLite file, after fine-tuning for it ({pathlib.Path(path).stem})",
        report,
        class_names=material.names,
        crop_fraction=material.crop_fraction,
    )
    with replaced(f"{path}.md") as unfinished:
        pathlib.Path(unfinished).write_text(card.text(), encoding="utf-8")
    return report


def sizes(path):
    """Gives a file's bytes, as they are and by gzip."""
    content = pathlib.Path(path).read_bytes()
    return {"bytes": len(content), "gzip": len(gzip.compress(content, 9))}


def compare(outputs, expected, labels):
    """Compares what a file gives with the labels and with the model.

    Args:
        outputs: Array (images, classes).
        expected: What the model gives for the same images.
        labels: The right outputs.

    Returns:
        Dictionary of two fractions of the images, `"top1"` and `"agreement"`.
    """
    return {
        "top1": top1(outputs, labels),
        "agreement": top1(outputs, expected.argmax(axis=-1)),
    }


def write_json(path, content):
    """Writes a JSON file, replacing it whole."""
    with replaced(path) as unfinished:
        pathlib.Path(unfinished).write_text(json.dumps(content, indent=1))


def top1(outputs, labels):
    """Gives the fraction of images whose best class is the right one."""
    return float(np.mean(np.argmax(outputs, axis=-1) == labels))
