"""What all export scripts share: which model, on which images it is checked."""

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
    "A .keras file, the folder of a run, a file of weights, or a variant: "
    f"{', '.join(VARIANTS)}.",
)
_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "Of a variant: imagenet, cifar10, or a file. Default: the variant's own.",
)
_ACTIVATION = flags.DEFINE_string(
    "activation",
    None,
    "Of a file of weights, if no published variant is like it: gelu, relu.",
)
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "File with the name of a class a line, or `imagenet`. Default: the names "
    "in the .keras file; of a variant, those of its weights.",
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Side, in pixels. Default: the model's, or 224.", 1
)
_PIXEL_RANGE = flags.DEFINE_string(
    "pixel_range",
    None,
    "Pixels that a model takes that is no ConvMixer: 0..255, 0..1, -1..1, or "
    "MEAN/STD of pixels in [0, 255].",
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
    "tensorflow-datasets, or a folder of images that nobody labeled.",
)
_SPLIT = flags.DEFINE_string("split", "validation", "Which part of the images.")
_LIMIT = flags.DEFINE_integer("limit", 2000, "The most images to take.", 1)
CROP = flags.DEFINE_float(
    "crop_fraction",
    None,
    "Part of an image's side to keep. Default: the model's, if it is a .keras "
    f"file that says it, or a variant; else {CROP_FRACTION}.",
)
ORIENTATION = flags.DEFINE_enum(
    "orientation",
    None,
    ORIENTATIONS,
    "Turn images as their EXIF says, or take pixels as stored. Default: the "
    "model's, if its file says it, else exif.",
)
_LIMITS = {
    "min_agreement": "Least fraction of images with the same best class.",
    "max_difference": "Largest difference of probabilities.",
    "max_mean_difference": "Largest mean difference of probabilities.",
    "max_accuracy_loss": "Most that the accuracy may fall, a fraction.",
    "max_total_variation": "Largest mean total variation distance of an "
    "image's probabilities.",
}
for _name, _text in _LIMITS.items():
    flags.DEFINE_float(_name, None, f"{_text} Default: by number format.", 0, 1)
_TRAINED_ON = flags.DEFINE_string(
    "dataset", None, "What the weights were trained on, for the model card."
)
_LICENSE = flags.DEFINE_string(
    "license", None, "License of the weights, for the model card."
)
_THREADS = flags.DEFINE_integer("threads", 1, "Threads for the artifact.", 1)


def begin(argv):
    """Checks the command line and turns the log on.

    Args:
        argv: What is left of the command line after the flags.

    Raises:
        app.UsageError: If that is anything.
    """
    start(argv)
    if not flags.FLAGS["verbosity"].present:
        logging.get_absl_handler().addFilter(_is_worth_reading)
        tf.get_logger().setLevel("WARNING")
    if "scheme" in flags.FLAGS and flags.FLAGS["scheme"].present:
        logging.warning("--scheme is deprecated. Use --quantization.")


def _is_worth_reading(record):
    """Whether a line of the log is a script's, or more than information."""
    folder = pathlib.Path(record.pathname).parent
    ours = {
        pathlib.Path(file).resolve().parent for file in (__file__, sys.argv[0])
    }
    return folder in ours or record.levelname != "INFO"


@contextlib.contextmanager
def errors_end_it(output=None):
    """Ends the program with a line where something is wrong.

    The status is 1; 130, as is usual, if it was Ctrl-C. The folder that the
    output is to lie in is made, and goes again if nothing comes into it.

    Args:
        output: Path of what is written. Default: `--output`.
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
        print("Interrupted. What was unfinished is gone.", file=sys.stderr)
        sys.exit(130)


def load_model(name=None, any_size=False):
    """Loads the model that the flags name.

    Where the model says how images are cropped and turned for it, that
    becomes the default of `--crop_fraction` and `--orientation`.

    Args:
        name: What `--model` may be, which is the default.
        any_size: Whether a model that doesn't say for which size it is, a
            variant or weights, is to take all; otherwise `--image_size`.

    Returns:
        A `keras.Model`, and the names of its classes or `None`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no model, or `--labels` or `--image_size`
            doesn't fit it.
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
            f"The model has {classes} outputs, and there are names for "
            f"{len(names)}. Pass --labels, a file with a name a line."
        )


def _check_size(model):
    """Refuses `--image_size` for a model that takes another."""
    size, shape = _IMAGE_SIZE.value, model.input_shape
    if size and isinstance(shape, tuple) and set(shape[1:3]) - {None, size}:
        raise ValueError(
            f"The model takes images of {' x '.join(map(str, shape[1:3]))} "
            f"pixels. Received: --image_size={size}"
        )


def side(model):
    """Gives the side to bring images to: the model's, or `--image_size`."""
    height, width = model.input_shape[1:3]
    default = default_image_size(_MODEL.value)
    return height or width or _IMAGE_SIZE.value or default


def image_size(model, way_out):
    """Gives the side of the model's images, in pixels.

    Args:
        model: A `keras.Model`.
        way_out: String, what to pass where that is none, for the message.

    Returns:
        Integer: the model's own; where that is open, `--image_size` or 224.

    Raises:
        ValueError: If its images are not square or not in three colors.
    """
    height, width, channels = model.input_shape[1:]
    size = side(model)
    if {height, width} - {None, size} or channels != 3:
        raise ValueError(
            "Photos are cut to squares of three colors. The model takes "
            f"images of shape {model.input_shape[1:]}; pass {way_out}."
        )
    return size


def crop_fraction():
    """Gives the part of an image's side to keep, said or by default."""
    return CROP_FRACTION if CROP.value is None else CROP.value


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
            f"{len(images)}; pass other --images, or --noverify."
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
        split: Which part of them.

    Returns:
        What `data.read_images` takes.
    """
    folder = pathlib.Path(name)
    if folder.is_dir() and not (folder / split).is_dir():
        with contextlib.suppress(FileNotFoundError):
            return data.open_unlabeled(folder)
    return data.open_dataset(name, split)


def check(path, model, samples, **arguments):
    """Verifies an artifact as the flags say.

    Args:
        path: Path of the artifact.
        model: The `keras.Model`; if it is no classifier, features are
            compared.
        samples: What `load_images` returns.
        **arguments: Further ones of `verify`.

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
    """Collects the arguments of `verify` that the flags give."""
    chosen = {name: flags.FLAGS[name].value for name in _LIMITS}
    return {
        "limits": {k: v for k, v in chosen.items() if v is not None},
        "threads": _THREADS.value,
    }


def finish(
    kind, write, model, names=None, *, path=None, samples=None, **arguments
):
    """Publishes an artifact as the flags say.

    Args:
        kind: What it is, such as `"an ONNX file"`.
        write: Function of a path, which writes the artifact there.
        model: The `keras.Model` to compare with.
        names: Names of its classes, or `None`.
        path: Where it is to appear. Default: `--output`.
        samples: What `load_images` returns, to verify on; it is called if
            this is `None`, but for `--noverify`.
        **arguments: Further ones of `publish`.

    Returns:
        A `Report`, or `None` with `--noverify`.

    Raises:
        FileExistsError: As `publish`.
        ValueError: As `publish`.
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
    """Collects what the flags and the published table say for a card."""
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
    """Gives the `PublishedWeights` that were loaded, or `None` for others."""
    found = PUBLISHED_WEIGHTS.get(f"convmixer_{_MODEL.value}")
    ours = found and _WEIGHTS.value in (None, found.dataset)
    return found if ours else None


def published_accuracy():
    """Says how good the published weights are, and where that is known from.

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
        rows: Lists of strings, the first of which are the titles.
    """
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, f"|{len(rows[0]) * '---|'}")
    print("", *lines, sep="\n")
