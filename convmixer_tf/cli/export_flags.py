"""Common flags and functions of the export commands."""

import contextlib
import os
import pathlib
import sys

import numpy as np
import tensorflow as tf
from absl import flags
from absl import logging

from convmixer_tf import data
from convmixer_tf import files
from convmixer_tf import preprocessing
from convmixer_tf import progress
from convmixer_tf.cli.launch import start
from convmixer_tf.data.cropping import CROP_FRACTION
from convmixer_tf.export import publish
from convmixer_tf.export import verify
from convmixer_tf.export import with_pixel_range
from convmixer_tf.export.preparation import classifier_of
from convmixer_tf.export.verification.verify import MIN_IMAGES
from convmixer_tf.models import open_model
from convmixer_tf.models.open_model import default_image_size
from convmixer_tf.models.probabilities import name_classes
from convmixer_tf.models.probabilities import num_classes
from convmixer_tf.models.variants import VARIANTS
from convmixer_tf.preprocessing.decoding import class_names
from convmixer_tf.validation import ORIENTATIONS
from convmixer_tf.weights import PUBLISHED_WEIGHTS
from convmixer_tf.weights import read_facts

# What they are called.
DATASETS = {"imagenet": "ImageNet-1k", "cifar10": "CIFAR-10"}

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "A .keras file, a run folder, a weights file, or a variant: "
    f"{', '.join(VARIANTS)}.",
)
_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "For a variant: imagenet, cifar10 or a file. Default: its published ones.",
)
_ACTIVATION = flags.DEFINE_string(
    "activation",
    None,
    "For a weights file of an unpublished architecture: gelu or relu.",
)
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "File with one class name a line, or `imagenet`. Default: the names in the "
    ".keras file, or of the variant's weights.",
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Image size, pixels. Default: the model's, or 224.", 1
)
_PIXEL_RANGE = flags.DEFINE_string(
    "pixel_range",
    None,
    "Pixel range of a model that is not a ConvMixer: 0..255, 0..1, -1..1, or "
    "MEAN/STD of pixels in [0, 255].",
)
OUTPUT = flags.DEFINE_string("output", None, "File or folder to write.")
OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Whether to replace an existing output."
)
VERIFY = flags.DEFINE_bool(
    "verify", True, "Whether to compare the output with the model."
)
_IMAGES = flags.DEFINE_string(
    "images",
    None,
    "Real images for the comparison: a folder split/class/*.jpg, a name in "
    "tensorflow-datasets, or a folder of unlabeled images.",
)
_SPLIT = flags.DEFINE_string("split", "validation", "Split of the images.")
_LIMIT = flags.DEFINE_integer("limit", 2000, "Maximum number of images.", 1)
CROP = flags.DEFINE_float(
    "crop_fraction",
    None,
    "Fraction of an image's side to keep. Default: the value in the .keras "
    f"file or of the variant, else {CROP_FRACTION}.",
)
ORIENTATION = flags.DEFINE_enum(
    "orientation",
    None,
    ORIENTATIONS,
    "Rotate images as their EXIF says, or read pixels as stored. Default: the "
    "value in the model's file, else exif.",
)
_LIMITS = {
    "min_agreement": "Minimum fraction of images with the same top class.",
    "max_difference": "Maximum difference of probabilities.",
    "max_mean_difference": "Maximum mean difference of probabilities.",
    "max_accuracy_loss": "Maximum drop in accuracy, a fraction.",
    "max_total_variation": "Maximum mean total variation distance of the "
    "probabilities.",
}
for _name, _text in _LIMITS.items():
    flags.DEFINE_float(_name, None, f"{_text} Default: by number format.", 0, 1)
_TRAINED_ON = flags.DEFINE_string(
    "dataset", None, "Training data of the weights, for the model card."
)
_LICENSE = flags.DEFINE_string(
    "license", None, "License of the weights, for the model card."
)
_THREADS = flags.DEFINE_integer("threads", 1, "Threads for the artifact.", 1)


def begin(argv):
    """Checks the command line and enables the log.

    Args:
        argv: Remaining arguments of the command line after the flags.

    Raises:
        app.UsageError: If there are any.
    """
    start(argv)
    if not flags.FLAGS["verbosity"].present:
        logging.get_absl_handler().addFilter(_is_worth_reading)
        tf.get_logger().setLevel("WARNING")
    if "scheme" in flags.FLAGS and flags.FLAGS["scheme"].present:
        logging.warning("--scheme is deprecated. Use --quantization.")


def _is_worth_reading(record):
    """Returns whether a log record is a script's, or a warning or error."""
    folder = pathlib.Path(record.pathname).parent
    ours = {
        pathlib.Path(file).resolve().parent for file in (__file__, sys.argv[0])
    }
    return folder in ours or record.levelname != "INFO"


@contextlib.contextmanager
def errors_end_it(output=None):
    """Ends the program with a one-line message on errors.

    The exit status is 1, or 130 for Ctrl-C, as usual. The parent folder of the
    output is created, and removed if it stays empty.

    Args:
        output: Path of the output. Defaults to `--output`.
    """
    try:
        with (
            files.made_parents(output or OUTPUT.value or os.curdir),
            progress.told(),
        ):
            yield
    except (ImportError, OSError, ValueError, tf.errors.OpError) as error:
        sys.exit(f"Error: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        print("Interrupted. Incomplete output was removed.", file=sys.stderr)
        sys.exit(130)


def load_model(name=None, any_size=False):
    """Loads the model in the flags.

    If the model's file has a crop fraction and an orientation, they become the
    defaults of `--crop_fraction` and `--orientation`.

    Args:
        name: Like `--model`, which is the default.
        any_size: Whether a variant or a weights file, which fit any size, takes
            images of any size instead of `--image_size`.

    Returns:
        A `keras.Model`, and its class names or `None`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no model, or if `--labels` or `--image_size`
            does not fit it.
    """
    name = name or _MODEL.value
    logging.info("Loading %s", name)
    progress.note("loading %s", name)
    opened = open_model(
        name,
        _IMAGE_SIZE.value,
        any_size=any_size,
        weights=_WEIGHTS.value,
        activation=_ACTIVATION.value,
    )
    model, names = opened.model, opened.class_names
    if _PIXEL_RANGE.value:
        model = with_pixel_range(model, _PIXEL_RANGE.value)
    flags.FLAGS.set_default("crop_fraction", opened.crop_fraction)
    flags.FLAGS.set_default("orientation", opened.orientation)
    if _LABELS.value == "imagenet":
        names = class_names("imagenet")
    elif _LABELS.value:
        names = files.read_lines(_LABELS.value)
    _check_names(model, names)
    _check_size(model)
    return model, names


def _check_names(model, names):
    classes = model.output_shape[-1]
    allowed = (classes, num_classes(classes))
    if names and classifier_of(model) and len(names) not in allowed:
        raise ValueError(
            f"The model has {classes} outputs, but there are {len(names)} "
            "class names. Pass --labels, a file with one name a line."
        )


def _check_size(model):
    """Raises an error if `--image_size` differs from the model's size."""
    size, shape = _IMAGE_SIZE.value, model.input_shape
    if size and isinstance(shape, tuple) and set(shape[1:3]) - {None, size}:
        raise ValueError(
            f"The model takes images of {' x '.join(map(str, shape[1:3]))} "
            f"pixels. Received: --image_size={size}"
        )


def side(model):
    """Returns the image size: the model's, or `--image_size`."""
    height, width = model.input_shape[1:3]
    default = default_image_size(_MODEL.value)
    return height or width or _IMAGE_SIZE.value or default


def image_size(model, way_out):
    """Returns the size of the model's images, in pixels.

    Args:
        model: A `keras.Model`.
        way_out: String, an alternative to pass, for the error message.

    Returns:
        Integer: the model's size if it is fixed, else `--image_size` or 224.

    Raises:
        ValueError: If its images are not square or do not have 3 channels.
    """
    height, width, channels = model.input_shape[1:]
    size = side(model)
    if {height, width} - {None, size} or channels != 3:
        raise ValueError(
            "The model must take square images with three channels, like the "
            f"photos. It takes images of shape {model.input_shape[1:]}. Pass "
            f"{way_out}."
        )
    return size


def crop_fraction():
    """Returns the crop fraction in the flags, or the default."""
    return CROP_FRACTION if CROP.value is None else CROP.value


def load_images(model, names):
    """Reads the images in the flags, in the model's input size.

    Args:
        model: A `keras.Model`.
        names: Names of its classes, or `None`.

    Returns:
        uint8 array of pixels, and integer array of the correct outputs of the
        model, -1 if unknown.

    Raises:
        FileNotFoundError: If there are no images.
        ValueError: If there are too few, or if their classes do not match.
    """
    size = image_size(model, "--noverify")
    if not _IMAGES.value:
        raise ValueError(
            "Verifying needs real images: pass --images, a folder, or "
            "--noverify."
        )
    dataset = open_images(_IMAGES.value, _SPLIT.value)
    images, labels = data.read_images(
        dataset,
        size,
        _LIMIT.value,
        crop_fraction=crop_fraction(),
        orientation=ORIENTATION.value,
    )
    if len(images) < MIN_IMAGES:
        raise ValueError(
            f"Verifying needs at least {MIN_IMAGES} images. Received: "
            f"{len(images)}. Pass other --images, or --noverify."
        )
    if classifier_of(model) is None or dataset.multi_label:
        labels = np.full(len(images), -1)
    elif dataset.class_names:
        outputs = model.output_shape[-1]
        outputs = preprocessing.match_classes(
            dataset.class_names,
            name_classes(names, outputs),
            num_classes(outputs),
        )
        labels = outputs[labels]
    return images, labels


def open_images(name, split):
    """Opens real images, labeled or not.

    Args:
        name: Path of a folder split/class/*.jpg or of a folder of images, or
            a name in tensorflow-datasets.
        split: The split to open.

    Returns:
        A data set for `data.read_images`.
    """
    folder = pathlib.Path(name)
    if folder.is_dir() and not (folder / split).is_dir():
        with contextlib.suppress(FileNotFoundError):
            return data.open_unlabeled(folder)
    return data.open_dataset(name, split)


def check(path, model, samples, **arguments):
    """Verifies an artifact.

    Args:
        path: Path of the artifact.
        model: The `keras.Model`. If it is not a classifier, features are
            compared.
        samples: Images and labels from `load_images`.
        **arguments: Other arguments of `verify`.

    Returns:
        A `Report`.
    """
    images, labels = samples
    logging.info("Verifying on %d images", len(images))
    progress.note("verifying on %d images", len(images))
    features = classifier_of(model) is None
    return verify(
        model,
        path,
        images,
        labels,
        features=features,
        **_verification(),
        **arguments,
    )


def _verification():
    """Collects the arguments of `verify` from the flags."""
    chosen = {name: flags.FLAGS[name].value for name in _LIMITS}
    return {
        "limits": {k: v for k, v in chosen.items() if v is not None},
        "threads": _THREADS.value,
    }


def finish(
    kind, write, model, names=None, *, path=None, samples=None, **arguments
):
    """Publishes an artifact.

    Args:
        kind: Name of the format, such as `"an ONNX file"`.
        write: Function of a path that writes the artifact.
        model: The `keras.Model` to compare with.
        names: Names of its classes, or `None`.
        path: Path of the artifact. Defaults to `--output`.
        samples: Images and labels for the verification, from `load_images`. If
            it is `None` and without `--noverify`, they are loaded.
        **arguments: Other arguments of `publish`.

    Returns:
        A `Report`, or `None` with `--noverify`.

    Raises:
        FileExistsError: As for `publish`.
        ValueError: As for `publish`.
    """
    path = os.path.normpath(path or OUTPUT.value)
    if VERIFY.value and samples is None:
        samples = load_images(model, names)
    images, labels = samples or (None, None)
    logging.info("Exporting to %s", path)
    report = publish(
        write,
        path,
        model,
        kind,
        images=images,
        labels=labels,
        class_names=names,
        card=card(),
        on_report=lambda report: print(report.table(), flush=True),
        **_verification(),
        **arguments,
    )
    print(f"{path}: {files.size_of(path):,} bytes")
    return report


def card():
    """Collects a card's content from the flags and published weights."""
    published = published_weights()
    trained_on = _TRAINED_ON.value
    if published and not trained_on:
        trained_on = f"{DATASETS[published.dataset]}. {published_accuracy()}"
    return {
        "trained_on": trained_on,
        "license": _LICENSE.value or (published and published.license),
        "crop_fraction": crop_fraction(),
        "orientation": ORIENTATION.value,
    }


def published_weights():
    """Returns the loaded `PublishedWeights`, or `None` for other weights."""
    found = PUBLISHED_WEIGHTS.get(f"convmixer_{_MODEL.value}")
    ours = found and _WEIGHTS.value in (None, found.dataset)
    return found if ours else None


def published_accuracy():
    """Describes the accuracy of the published weights and its source.

    Returns:
        String, a paragraph.
    """
    published = published_weights()
    if not (published.repository or published.file):
        facts = read_facts(f"convmixer_{_MODEL.value}")
        return (
            f"Measured on {facts['images']:,} test images, of the weights "
            f"before they were exported:\ntop-1 {facts['top1']:.2%}. "
            f"{facts['remark']}"
        )
    source = f"{published.repository} on the Hugging Face hub"
    if published.file:
        source = published.file.url
    top5 = f", top-5 {published.top5} %" if published.top5 else ""
    return (
        f"Weights: {source}. Published ImageNet accuracy\n"
        f"({published.accuracy_source}; not measured with this file): top-1 "
        f"{published.top1} %{top5}."
    )


def print_table(rows):
    """Prints a Markdown table.

    Args:
        rows: Lists of strings. The first list has the titles.
    """
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, f"|{len(rows[0]) * '---|'}")
    print("", *lines, sep="\n")
