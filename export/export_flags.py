"""What all export scripts share: which model, on which images it is checked."""

import contextlib
import dataclasses
import os
import pathlib
import sys

import keras
import tensorflow as tf
from absl import app
from absl import flags
from absl import logging

import convmixer_tf
from convmixer_tf import data
from convmixer_tf import files
from convmixer_tf import preprocessing
from convmixer_tf.export import verify
from convmixer_tf.export.verification import MIN_IMAGES
from convmixer_tf.training import read_class_names

VARIANTS = ("1536_20", "768_32", "1024_20")

_MODEL = flags.DEFINE_string(
    "model", None, f"A .keras file, or a variant: {', '.join(VARIANTS)}."
)
_WEIGHTS = flags.DEFINE_string(
    "weights", "imagenet", "Of a variant: `imagenet`, or a file of weights."
)
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "File with the name of a class a line. Default: the names in the .keras "
    "file; of a variant, ImageNet's.",
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Side, in pixels. Default: the model's, or 224.", 1
)
OUTPUT = flags.DEFINE_string("output", None, "What to write.")
OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Whether to replace what is there."
)
VERIFY = flags.DEFINE_bool(
    "verify", True, "Whether to compare with the model, before it appears."
)
_IMAGES = flags.DEFINE_string(
    "images",
    None,
    "Real images to compare on: a folder split/class/*.jpg, a name in "
    "tensorflow-datasets, or a folder of images that nobody labelled.",
)
_SPLIT = flags.DEFINE_string("split", "validation", "Which part of the images.")
_LIMIT = flags.DEFINE_integer("limit", 2000, "The most images to take.", 1)
CROP = flags.DEFINE_float(
    "crop_fraction", data.CROP_FRACTION, "Part of an image's side to keep."
)
_LIMITS = {
    "min_agreement": "Least fraction of images with the same best class.",
    "max_difference": "Largest difference of probabilities.",
    "max_mean_difference": "Largest mean difference of probabilities.",
    "max_accuracy_loss": "Most that the accuracy may fall, a fraction.",
}
for _name, _text in _LIMITS.items():
    flags.DEFINE_float(_name, None, f"{_text} Default: by number format.", 0, 1)
_ROUNDS = flags.DEFINE_integer(
    "latency_rounds", 7, "How often the latency is measured; 0 for never.", 0
)
_THREADS = flags.DEFINE_integer("threads", 1, "Threads for the artefact.", 1)


def begin(argv):
    """Checks the command line and turns the log on.

    Args:
        argv: What is left of the command line after the flags.

    Raises:
        app.UsageError: If that is anything.
    """
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.INFO)


@contextlib.contextmanager
def errors_end_it():
    """Ends the program with a line and status 1 where something is wrong."""
    try:
        yield
    except (ImportError, OSError, ValueError, tf.errors.OpError) as error:
        sys.exit(f"Error: {error}")


def load_model(name=None):
    """Loads the model that the flags name.

    Args:
        name: What `--model` may be, which is the default.

    Returns:
        A `keras.Model`, and the names of its classes or `None`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of Keras', or `--labels` doesn't fit it.
    """
    name = name or _MODEL.value
    logging.info("Loading %s", name)
    if name in VARIANTS:
        build = getattr(convmixer_tf, f"ConvMixer{name}")
        size = _IMAGE_SIZE.value or 224
        model = build(weights=_WEIGHTS.value, input_shape=(size, size, 3))
        names = tuple(c.name for c in preprocessing.imagenet_classes())
    elif not name.endswith(".keras") or not os.path.isfile(name):
        raise FileNotFoundError(
            "The model must be a .keras file that is there, or one of "
            f"{', '.join(VARIANTS)}. Received: {name!r}"
        )
    else:
        model = _read_keras(name)
        names = read_class_names(name)
    if _LABELS.value:
        text = pathlib.Path(_LABELS.value).read_text(encoding="utf-8")
        names = tuple(text.splitlines())
    _check_names(model, names)
    return model, names


def _read_keras(path):
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # From a damaged archive: of many kinds.
        raise ValueError(
            f"`{path}` is not a whole Keras model: {error}"
        ) from error


def _check_names(model, names):
    classes = model.output_shape[-1]
    if names and len(model.output_shape) == 2 and len(names) != classes:
        raise ValueError(
            f"The model has {classes} outputs, and there are names for "
            f"{len(names)}. Pass --labels, a file with a name a line."
        )


def image_size(model):
    """Gives the side of the model's images, in pixels.

    Args:
        model: A `keras.Model`.

    Returns:
        Integer: the model's own; where that is open, `--image_size` or 224.

    Raises:
        ValueError: If its images are not square or not in three colours, or
            `--image_size` says otherwise.
    """
    height, width, channels = model.input_shape[1:]
    size = height or width or _IMAGE_SIZE.value or 224
    if {height, width} - {None, size} or channels != 3:
        raise ValueError(
            "Photos are cut to squares of three colours. The model takes "
            f"images of shape {model.input_shape[1:]}; pass --noverify."
        )
    if _IMAGE_SIZE.value not in (None, size):
        raise ValueError(
            f"The model takes images of {size} pixels. Received: "
            f"--image_size={_IMAGE_SIZE.value}"
        )
    return size


def load_images(model, names):
    """Reads the images that the flags name, as the model takes them.

    Args:
        model: A `keras.Model`.
        names: Names of its classes, or `None`.

    Returns:
        uint8 array of pixels, and integer array of the model's outputs that
        are right for them, -1 where that isn't known.

    Raises:
        FileNotFoundError: If there are no images.
        ValueError: If there are too few, or their classes are not the model's.
    """
    size = image_size(model)
    if not _IMAGES.value:
        raise ValueError(
            "Verifying needs real images: pass --images, a folder, or "
            "--noverify."
        )
    dataset = open_images(_IMAGES.value, _SPLIT.value)
    images, labels = data.read_images(
        dataset, size, _LIMIT.value, crop_fraction=CROP.value
    )
    if len(images) < MIN_IMAGES:
        raise ValueError(
            f"Verifying needs at least {MIN_IMAGES} images. Received: "
            f"{len(images)}; pass other --images, or --noverify."
        )
    if dataset.class_names and len(model.output_shape) == 2:
        outputs = preprocessing.match_classes(
            dataset.class_names, names, model.output_shape[-1]
        )
        labels = outputs[labels]
    return images, labels


def open_images(name, split):
    """Opens real images, labelled or not.

    Args:
        name: Path of a folder split/class/*.jpg or of a folder of images, or
            a name in tensorflow-datasets.
        split: Which part of them.

    Returns:
        What `data.read_images` takes.
    """
    folder = pathlib.Path(name)
    if folder.is_dir() and not (folder / split).is_dir():
        with contextlib.suppress(FileNotFoundError):
            return data.open_unlabelled(folder)
    return data.open_dataset(name, split)


def check(path, model, samples, **arguments):
    """Verifies an artefact as the flags say.

    Args:
        path: Path of the artefact.
        model: The `keras.Model`.
        samples: What `load_images` returns.
        **arguments: Further ones of `verify`.

    Returns:
        A `Report`.
    """
    images, labels = samples
    logging.info("Verifying on %d images", len(images))
    chosen = {name: flags.FLAGS[name].value for name in _LIMITS}
    return verify(
        model,
        path,
        images,
        labels,
        limits={k: v for k, v in chosen.items() if v is not None},
        rounds=_ROUNDS.value,
        threads=_THREADS.value,
        **arguments,
    )


def finish(
    write,
    model,
    names=None,
    *,
    path=None,
    samples=None,
    replaced=files.replaced,
    inside="",
    **arguments,
):
    """Writes an artefact, which appears at its path only if it is right.

    A report in JSON lies beside it, with `.json` added to its name. Of an
    artefact that breaks a limit only that stays, as `.failed.json`.

    Args:
        write: Function of a path, which writes the artefact there.
        model: The `keras.Model` to compare with.
        names: Names of its classes, or `None`.
        path: Where it is to appear. Default: `--output`.
        samples: What `load_images` returns, to verify on; it is called if
            this is `None`, but for `--noverify`.
        replaced: Context manager from the final path to a temporary one, like
            `files.replaced`, which is for a single file.
        inside: Path in the artefact of what `verify` opens.
        **arguments: Further ones of `verify`.

    Returns:
        A `Report`, or `None` with `--noverify`.

    Raises:
        ValueError: If a limit is broken, or the artefact doesn't run.
    """
    path = path or OUTPUT.value
    if VERIFY.value and samples is None:
        samples = load_images(model, names)
    report = None
    with replaced(path) as unfinished:
        logging.info("Exporting to %s", path)
        write(unfinished)
        if samples:
            opened = os.path.join(unfinished, inside) if inside else unfinished
            report = check(opened, model, samples, **arguments)
            report = dataclasses.replace(report, artefact=path)
            _judge(report, path)
    if report:
        report.save(f"{path}.json")
    print(f"{path}: {files.size_of(path):,} bytes")
    return report


def _judge(report, path):
    print(report.table(), flush=True)
    if not report.passed:
        report.save(f"{path}.failed.json")
        raise ValueError(
            f"`{path}` was not written, since what was exported is outside "
            f"the limits: {describe(report.broken)}"
        )


def describe(broken):
    """Puts the broken limits of a report into one line."""
    return "; ".join(f"{name}: {text}" for name, text in broken.items())
