"""Draws what a trained ConvMixer sees and writes tables of its costs.

    python recipes/look_inside.py --model runs/cifar10 \
        --images FOLDER --split test --output runs/look_inside

`--model` is a `.keras` file, a run folder or a pretrained variant: 1536_20,
768_32, 1024_20, 512_16, 256_8. `--images` is a folder split/class/*.jpg, a name
in tensorflow-datasets, or a folder of unlabeled images. The script writes PNGs
and `costs.{md,csv,json}` to `--output` and prints the costs.

Time: ten seconds for a CIFAR-10 network. Result: `recipes/results/look_inside`.
"""

import pathlib

import launch
import run_flags
from absl import flags
from absl import logging

from convmixer_tf import analysis
from convmixer_tf import data
from convmixer_tf import models

_MODEL = flags.DEFINE_string("model", None, "Model.", required=True)
_IMAGES = flags.DEFINE_string(
    "images", None, "Folder, or name in tensorflow-datasets.", required=True
)
_SPLIT = flags.DEFINE_string("split", "validation", "Split of the images.")
_LIMIT = flags.DEFINE_integer("limit", 8, "Number of images.", 2, 32)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Image size, pixels. Default: the model's, or 224.", 1
)
_CROP = flags.DEFINE_float(
    "crop_fraction",
    None,
    "Fraction of an image's side to keep. Default: the model's, or else 0.96.",
)
_OUTPUT = flags.DEFINE_string("output", "runs/look_inside", "Folder to write.")
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Whether to replace existing files."
)


def read_images(model, crop_fraction, orientation):
    """Reads the images in the flags, in the model's input size."""
    height, width, channels = model.input_shape[1:]
    size = _IMAGE_SIZE.value or height or 224
    if (height or size, width or size, channels) != (size, size, 3):
        raise ValueError(
            "The model must take square images with three channels. Received: "
            f"a model with input_shape={model.input_shape}, and "
            f"--image_size={size}"
        )
    folder = pathlib.Path(_IMAGES.value)
    if folder.is_dir() and not (folder / _SPLIT.value).is_dir():
        dataset = data.open_unlabeled(folder)
    else:
        (dataset,) = run_flags.open_datasets(_IMAGES.value, _SPLIT.value)
    images, _ = data.read_images(
        dataset,
        size,
        _LIMIT.value,
        crop_fraction=crop_fraction,
        orientation=orientation,
    )
    return images


def main(argv):
    """Looks inside as the flags say."""
    launch.start(argv)
    opened = models.open_model(_MODEL.value, _IMAGE_SIZE.value)
    model, names = opened.model, opened.class_names
    crop_fraction = run_flags.given(_CROP, opened.crop_fraction)
    images = read_images(model, crop_fraction or 0.96, opened.orientation)
    logging.info("Drawing with %d images", len(images))
    paths = analysis.look_inside(
        model, images, _OUTPUT.value, names, overwrite=_OVERWRITE.value
    )
    table = pathlib.Path(_OUTPUT.value, "costs.md")
    print(table.read_text(encoding="utf-8"), *paths, sep="\n")


if __name__ == "__main__":
    launch.run(main)
