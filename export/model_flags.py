"""What the export scripts share: which model, and whether its copy agrees."""

import os
import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from absl import logging

import convmixer_tf
from convmixer_tf import data
from convmixer_tf import preprocessing
from convmixer_tf import training
from convmixer_tf import weights

VARIANTS = ("1536_20", "768_32", "1024_20")
_WEIGHTS = (".weights.h5", ".safetensors", ".pth", ".pth.tar", ".bin")
_FILES = (".jpg", ".jpeg", ".png")

# Largest difference, as a fraction of the largest output, at which two runs
# of one float32 graph are taken for the same.
TOLERANCE = 1e-5

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "A .keras file, a file of weights, or a variant whose weights are "
    f"fetched: {', '.join(VARIANTS)}.",
    required=True,
)
_ACTIVATION = flags.DEFINE_string(
    "activation", None, "Of weights of an architecture that isn't published."
)
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "File with the name of a class a line, or `imagenet`. Default: those in "
    "the .keras file, or ImageNet's for a variant.",
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "Side, in pixels. Default: the model's; 224 if it takes any.",
)
_IMAGES = flags.DEFINE_string(
    "images", None, "Folder of images to compare on. Default: made-up ones."
)
OUTPUT = flags.DEFINE_string("output", None, "What to write.", required=True)
OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Whether to replace what is there."
)


def load_model():
    """Loads the model that the flags name.

    Returns:
        A `keras.Model`, and the names of its classes or `None`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another kind, or if its activation isn't known.
    """
    name = _MODEL.value
    tell(f"Loading {name}")
    names = None
    if name in VARIANTS:
        build = getattr(convmixer_tf, f"ConvMixer{name}")
        model = build(input_shape=(None, None, 3))
        names = _imagenet_names()
    elif not os.path.isfile(name):
        raise FileNotFoundError(
            "--model must be a .keras file, a file of weights, or one of "
            f"{', '.join(VARIANTS)}. Received: {name!r}"
        )
    elif name.endswith(_WEIGHTS):
        model = _from_weights(name)
    else:
        model = keras.saving.load_model(name)
        names = training.read_class_names(name)
    if _LABELS.value == "imagenet":
        names = _imagenet_names()
    elif _LABELS.value:
        text = pathlib.Path(_LABELS.value).read_text(encoding="utf-8")
        names = tuple(text.splitlines())
    return model, names


def image_size(model):
    """Returns the side of the images to export for, in pixels."""
    height, width = model.input_shape[1:3]
    return _IMAGE_SIZE.value or height or width or 224


def sample_images(model, crop_fraction=data.CROP_FRACTION):
    """Gives images to compare on.

    Args:
        model: A `keras.Model` of images.
        crop_fraction: As for `data.resize_and_center_crop`.

    Returns:
        A list of the contents of files, and an array of the pixels that the
        evaluation transform makes of them. If the model's images are none
        that files hold, no files, and noise.
    """
    height, width, channels = model.input_shape[1:]
    size = image_size(model)
    if channels != 3 or {height, width} - {None, size}:
        shape = (8, height or size, width or size, channels)
        noise = np.random.default_rng(0).integers(0, 256, shape)
        return [], noise.astype("uint8")
    if _IMAGES.value:
        files = [
            path.read_bytes()
            for path in sorted(pathlib.Path(_IMAGES.value).rglob("*"))
            if path.suffix.lower() in _FILES
        ]
        if not files:
            raise ValueError(
                f"There are no {', '.join(_FILES)} files in {_IMAGES.value}."
            )
    else:
        files = _made_up_files(size)
    pixels = [
        data.resize_and_center_crop(
            data.decode_image(file), size, crop_fraction
        )
        for file in files
    ]
    return files, np.stack(pixels)


def compare(what, run, inputs, expected, batch_size=16):
    """Compares what was exported with the Keras model.

    Args:
        what: String, what is compared.
        run: Function from a batch of inputs to outputs.
        inputs: Array or list.
        expected: Array, the Keras model's outputs.
        batch_size: Inputs at a time.

    Returns:
        Float, the largest difference as a fraction of the largest output.

    Raises:
        ValueError: If it is above `TOLERANCE`.
    """
    tell(f"Comparing {what} on {len(inputs)} images")
    outputs = np.concatenate(
        [
            run(inputs[start : start + batch_size])
            for start in range(0, len(inputs), batch_size)
        ]
    )
    scale = np.max(np.abs(expected))
    difference = float(np.max(np.abs(outputs - expected)) / scale)
    if not difference <= TOLERANCE:
        raise ValueError(
            f"{what} differs from the Keras model by {difference:.2g} of its "
            f"largest output, more than {TOLERANCE:g}. Nothing was written."
        )
    return difference


def size_of(path):
    """Describes the size of a file, or of all files of a folder."""
    path = pathlib.Path(path)
    files = [path] if path.is_file() else path.rglob("*")
    megabytes = sum(x.stat().st_size for x in files if x.is_file()) / 1e6
    return f"{megabytes:.2f} MB"


def begin(argv):
    """Checks the command line and keeps TensorFlow from chatting.

    Args:
        argv: What is left of the command line after the flags.

    Raises:
        app.UsageError: If that is anything.
    """
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
        tf.get_logger().setLevel("WARNING")


def tell(text):
    """Prints what is going on."""
    print(text, flush=True)


def print_table(rows):
    """Prints rows of strings in aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = map(str.ljust, row, widths)
        print("  ".join(cells).rstrip())


def _imagenet_names():
    return tuple(c.name for c in preprocessing.imagenet_classes())


def _from_weights(path):
    architecture = weights.infer_architecture(weights.read_weights(path))
    shape = (
        architecture.dim,
        architecture.depth,
        architecture.kernel_size,
        architecture.patch_size,
    )
    activation = _ACTIVATION.value or {
        (x.dim, x.depth, x.kernel_size, x.patch_size): x.activation
        for x in weights.PUBLISHED_WEIGHTS.values()
    }.get(shape)
    if activation is None:
        raise ValueError(
            f"{path} does not tell the activation of its ConvMixer, and the "
            "architecture is none of the published. Pass --activation, such "
            "as gelu or relu."
        )
    top = architecture.classes is not None
    return convmixer_tf.ConvMixer(
        *shape,
        activation,
        include_top=top,
        weights=path,
        input_shape=(None, None, architecture.channels),
        pooling=None if top else "avg",
        classes=architecture.classes or 1,
    )


def _made_up_files(size):
    """Makes PNG files of several sizes, of noise over a slope."""
    rng = np.random.default_rng(0)
    files = []
    for i in range(8):
        height, width = size + 9 * i, size + 40 - 5 * i
        image = rng.integers(0, 128, (height, width, 3))
        image += np.arange(width)[:, None] * 127 // width
        image = tf.io.encode_png(image.astype("uint8"))
        files.append(image.numpy())
    return files
