"""Classifies any number of images, or computes their features, as Parquet.

    convmixer map SOURCE --output FOLDER

SOURCE is a folder of images or its URL in a bucket, a .txt file with one path
per line, a .csv file with a column `path`, or TFRecord or Parquet files. Each
image is exactly one row of the output, even if workers or machines fail. The
same command resumes a stopped run. `--address auto` uses a Ray cluster. The
extra `ray` is required. Exit status: 0; 3 if some rows have an error; 1 if the
command failed.

Time: recipes/README.md has images per second.
"""

import sys

from absl import app
from absl import flags
from absl import logging

from convmixer_tf.cli.launch import start
from convmixer_tf.inference import map_images
from convmixer_tf.inference.bulk import FEATURES
from convmixer_tf.models.variants import VARIANTS
from convmixer_tf.validation import ORIENTATIONS

_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder to write, or its URL.", required=True
)
_MODEL = flags.DEFINE_string(
    "model",
    "256_8",
    "A .keras or .tflite file, a weights file, the folder of a SavedModel, "
    "of a TF Hub module or of a run, hf://USER/REPOSITORY, or one of "
    f"{', '.join(VARIANTS)}.",
)
_FEATURES = flags.DEFINE_enum(
    "features", None, FEATURES, "Write features instead of classes."
)
_TOP = flags.DEFINE_integer("top", 5, "Number of best classes per image.", 1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images per batch.", 1)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Image size, in pixels. Default: the model's.", 1
)
_CROP = flags.DEFINE_float(
    "crop_fraction",
    None,
    "Fraction of an image's side to keep. Default: the model's.",
    0.01,
    1,
)
_ORIENTATION = flags.DEFINE_enum(
    "orientation",
    None,
    ORIENTATIONS,
    "Rotate images as their EXIF says, or read pixels as stored. Default: the "
    "model's.",
)
_WORKERS = flags.DEFINE_integer("workers", 1, "Number of worker processes.", 1)
_GPUS = flags.DEFINE_float("gpus", 0, "GPUs per worker; may be a fraction.", 0)
_ADDRESS = flags.DEFINE_string(
    "address", None, "Ray cluster, or auto. Default: this machine."
)


def main(argv):
    """Runs `map_images` with the flags."""
    if len(argv) != 2:
        raise app.UsageError(f"Expected one SOURCE. Received: {argv[1:]}")
    start(argv[:1])
    report = map_images(
        argv[1],
        _OUTPUT.value,
        _MODEL.value,
        features=_FEATURES.value,
        top=_TOP.value,
        batch_size=_BATCH_SIZE.value,
        image_size=_IMAGE_SIZE.value,
        crop_fraction=_CROP.value,
        orientation=_ORIENTATION.value,
        workers=_WORKERS.value,
        gpus=_GPUS.value,
        address=_ADDRESS.value,
    )
    logging.info(
        "%d images in %s, %d of them computed now. Images with an error: %d.",
        report.images,
        _OUTPUT.value,
        report.computed,
        report.failed,
    )
    if report.failed:
        sys.exit(3)
