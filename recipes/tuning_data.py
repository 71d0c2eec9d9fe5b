"""Common data and files of the recipes for quantization-aware training."""

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from absl import logging

from convmixer_tf import data
from convmixer_tf.export import export_tflite
from convmixer_tf.export.qat import TuningConfig
from convmixer_tf.export.qat import fine_tune
from convmixer_tf.models import open_model
from convmixer_tf.preprocessing import match_classes

MIN_IMAGES = 10  # `verify` needs as many.

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "A ConvMixer's .keras file or a run folder.",
    required=True,
)
_DATA = flags.DEFINE_string(
    "data", None, "Folder, or name in tensorflow-datasets.", required=True
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Data directory of tensorflow-datasets."
)
_TRAIN_SPLIT = flags.DEFINE_string("train_split", "train", "Training split.")
_EVAL_SPLIT = flags.DEFINE_string("eval_split", "validation", "Eval split.")
_CROP = flags.DEFINE_float(
    "crop_fraction",
    None,
    "Fraction of an image's side to keep. Default: the model's, or else 0.96.",
    0.01,
    1,
)
_TRAIN_IMAGES = flags.DEFINE_integer(
    "train_images", 5000, "Maximum number of training images, in memory.", 1
)
_CALIBRATION_IMAGES = flags.DEFINE_integer(
    "calibration_images",
    300,
    "Number of images of --train_split for the calibration of int8. They are "
    "not used for training.",
    10,
)
_EVAL_IMAGES = flags.DEFINE_integer(
    "eval_images", 2000, "Maximum number of evaluation images.", MIN_IMAGES
)
_EPOCHS = flags.DEFINE_integer("epochs", 1, "Passes over the images.", 1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images per update.", 1)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", 1e-4, "Initial learning rate of Adam."
)
_FLIP = flags.DEFINE_bool("flip", True, "Whether to flip half of the images.")
_THREADS = flags.DEFINE_integer(
    "threads", 0, "Training threads; 0 for one per core.", 0
)
_SAVE_EVERY = flags.DEFINE_integer(
    "save_every", 100, "Updates between checkpoints.", 1
)


@dataclasses.dataclass(frozen=True)
class TuningData:
    """The model and the images in the flags.

    Attributes:
        model: The `keras.Model`.
        class_names: Names of its classes, or `None`.
        train: uint8 array of pixels and integer array of labels.
        calibration: uint8 array of pixels, of other images.
        test: uint8 array of pixels and integer array of labels, of a third
            set of images.
        crop_fraction: Fraction of an image's side that was kept.
        orientation: As in `data.decode_image`.
    """

    model: object
    class_names: tuple | None
    train: tuple
    calibration: np.ndarray
    test: tuple
    crop_fraction: float
    orientation: str

    def counts(self):
        """Returns the number of images in each set."""
        return {
            "train": len(self.train[0]),
            "calibration": len(self.calibration),
            "test": len(self.test[0]),
        }

    def tune(self, folder, quantization, config):
        """Calls `fine_tune` with the training images."""
        return fine_tune(
            self.model,
            folder,
            *self.train,
            config,
            quantization=quantization,
            calibration_images=self._calibration_for(quantization),
        )

    def export(self, path, model, quantization):
        """Writes a model as a TFLite file, replacing an existing one."""
        export_tflite(
            model,
            path,
            quantization=quantization,
            calibration_images=self._calibration_for(quantization),
            class_names=self.class_names,
            crop_fraction=self.crop_fraction,
            orientation=self.orientation,
            overwrite=True,
        )

    def _calibration_for(self, quantization):
        return self.calibration if quantization == "int8" else None

    def compare(self, outputs, expected):
        """Returns the top-1 of outputs and their agreement with others."""
        classes, (_, labels) = outputs.argmax(axis=-1), self.test
        return {
            "top1": float(np.mean(classes == labels)),
            "agreement": float(np.mean(classes == expected.argmax(axis=-1))),
        }


def config(method, seed):
    """Returns the `TuningConfig` from the flags."""
    return TuningConfig(
        method=method,
        epochs=_EPOCHS.value,
        batch_size=_BATCH_SIZE.value,
        learning_rate=_LEARNING_RATE.value,
        flip=_FLIP.value,
        seed=seed,
        threads=_THREADS.value,
        save_every=_SAVE_EVERY.value,
    )


def define_quantization(define, default, text):
    """Defines `--quantization`, and `--scheme`, its deprecated name.

    Args:
        define: `flags.DEFINE_enum` or `flags.DEFINE_multi_enum`.
        default: The default value.
        text: The text for `--help`.

    Returns:
        The flag's holder.
    """
    holder = define("quantization", default, ["int8", "int4"], text)
    flags.DEFINE_alias("scheme", "quantization")
    return holder


def start(argv, output):
    """Checks the command line and enables the log of the recipes.

    Args:
        argv: The command line after the flags were parsed.
        output: Path of the folder to write to.

    Returns:
        A `pathlib.Path`, the folder.

    Raises:
        app.UsageError: If there are arguments that are not flags.
        NotADirectoryError: If the folder is a file.
    """
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    folder = pathlib.Path(output)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(
            f"--output must be a folder. Received: the file `{folder}`"
        )
    logging.set_verbosity(logging.INFO)
    here = pathlib.Path(__file__).parent
    logging.get_absl_handler().addFilter(
        lambda record: (
            pathlib.Path(record.pathname).parent == here
            or record.levelname != "INFO"
        )
    )
    tf.get_logger().setLevel("ERROR")
    if flags.FLAGS["scheme"].present:
        logging.warning("--scheme is deprecated. Use --quantization.")
    return folder


def read():
    """Reads the model and the images in the flags.

    Returns:
        A `TuningData`.

    Raises:
        FileNotFoundError: If the file or folder does not exist.
        ValueError: If the model does not take square images of a static size,
            if it does not know the data's classes, or if there are too few
            images.
    """
    opened = open_model(_MODEL.value)
    model, names = opened.model, opened.class_names
    size = _side(model)
    crop = _CROP.value or opened.crop_fraction or 0.96
    orientation = opened.orientation or "exif"
    transform = {"crop_fraction": crop, "orientation": orientation}
    train_set, test_set = _open(_TRAIN_SPLIT), _open(_EVAL_SPLIT)
    if len(test_set) < MIN_IMAGES:
        raise ValueError(
            f"--eval_split must have at least {MIN_IMAGES} images. Received: "
            f"{len(test_set)} images in {_EVAL_SPLIT.value!r}"
        )
    outputs = [
        match_classes(dataset.class_names, names, model.output_shape[-1])
        for dataset in (train_set, test_set)
    ]
    calibration = _CALIBRATION_IMAGES.value
    images, labels = data.read_images(
        train_set,
        size,
        _TRAIN_IMAGES.value + calibration,
        **transform,
    )
    labels = outputs[0][labels]
    test_images, test_labels = data.read_images(
        test_set, size, _EVAL_IMAGES.value, **transform
    )
    test = test_images, outputs[1][test_labels]
    chosen = _shuffled_without(images, test_images)
    if len(chosen) < calibration + _BATCH_SIZE.value:
        raise ValueError(
            f"--train_split must have at least {calibration} images for "
            f"--calibration_images and {_BATCH_SIZE.value} for one batch to "
            f"train on. Received: {len(chosen)} images in "
            f"{_TRAIN_SPLIT.value!r} that are not in {_EVAL_SPLIT.value!r}. "
            "Pass a smaller --calibration_images or --batch_size, a larger "
            "--train_images, or more images."
        )
    rest = chosen[calibration:]
    logging.info(
        "%d images to train on, %d to calibrate, %d to test",
        *(len(rest), calibration, len(test_images)),
    )
    return TuningData(
        model,
        names,
        (images[rest], labels[rest]),
        images[chosen[:calibration]],
        test,
        **transform,
    )


def _side(model):
    """Returns the side of the model's images, in pixels."""
    shape = model.input_shape
    square = isinstance(shape, tuple) and len(shape) == 4
    if not square or None in shape[1:] or shape[1] != shape[2] or shape[3] != 3:
        raise ValueError(
            "--model must take square images of a static size in 3 channels, "
            "since the data are resized to them. Received: a model with "
            f"input_shape={shape}"
        )
    return shape[1]


def _open(flag):
    try:
        dataset = data.open_dataset(
            _DATA.value, flag.value, data_dir=_DATA_DIR.value
        )
    except ValueError as error:
        raise ValueError(f"{error} (`--{flag.name}`)") from error
    if dataset.multi_label:
        raise ValueError(
            "--data must have one label an image. Received: the table "
            f"`{_DATA.value}`, with several labels or none"
        )
    return dataset


def _shuffled_without(images, others):
    """Returns shuffled indices of images that are not in another set."""
    known = {image.tobytes() for image in others}
    new = [i for i, image in enumerate(images) if image.tobytes() not in known]
    if len(new) < len(images):
        logging.warning(
            "%d of %d images of --train_split are also in --eval_split. They "
            "are not used for training.",
            *(len(images) - len(new), len(images)),
        )
    return np.random.default_rng(0).permutation(new).astype(int)
