"""Draws what a trained ConvMixer sees, and tables what it costs.

    python recipes/look_inside.py --model runs/cifar10 \
        --images FOLDER --split test --output runs/look_inside

`--model` is a `.keras` file, the folder of a run or a pretrained variant:
1536_20, 768_32, 1024_20, 512_16, 256_8. `--images` is a folder
split/class/*.jpg, a name in tensorflow-datasets, or a folder of images that
nobody labeled. Writes PNGs and `costs.{md,csv,json}` to `--output`, and prints
the costs.

Time: ten seconds for a CIFAR-10 network. Result: `recipes/results/look_inside`.
"""

import pathlib

import launch
import numpy as np
import run_flags
from absl import flags
from absl import logging
from keras import ops

from convmixer_tf import analysis
from convmixer_tf import data
from convmixer_tf import models
from convmixer_tf.files import check_destination

FILES = (
    "feature_maps.png",
    "activation_maps.png",
    "dense_classes.png",
    "patch_filters.png",
    "depthwise_filters.png",
    "receptive_fields.png",
    "costs.md",
    "costs.csv",
    "costs.json",
)

_MODEL = flags.DEFINE_string("model", None, "What to look into.", required=True)
_IMAGES = flags.DEFINE_string(
    "images", None, "Folder, or name in tensorflow-datasets.", required=True
)
_SPLIT = flags.DEFINE_string("split", "validation", "Which part of the images.")
_LIMIT = flags.DEFINE_integer("limit", 8, "How many images to take.", 2, 32)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Side, in pixels. Default: the model's, or 224.", 1
)
_CROP = flags.DEFINE_float(
    "crop_fraction",
    None,
    "Part of an image's side to keep. Default: the model's, or else "
    f"{data.CROP_FRACTION}.",
)
_OUTPUT = flags.DEFINE_string("output", "runs/look_inside", "Folder to write.")
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Whether to replace what is there."
)


def read_images(model, crop_fraction, orientation):
    """Reads the images that the flags name, as the model takes them."""
    height, width, channels = model.input_shape[1:]
    size = _IMAGE_SIZE.value or height or 224
    if (height or size, width or size, channels) != (size, size, 3):
        raise ValueError(
            "Images are cut to squares of three colors. Received: a model "
            f"with input_shape={model.input_shape}, and --image_size={size}"
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


def feature_maps(model, image):
    """Computes maps of the first image: the stem's and five blocks'."""
    depth = len(analysis.receptive_fields(model)) - 1
    blocks = np.unique(np.linspace(0, depth - 1, 5).round().astype(int))
    names = ["patch_embed", *blocks.tolist()]
    maps = analysis.feature_extractor(model, names)(image[None], training=False)
    return {name: ops.convert_to_numpy(maps[name])[0] for name in maps}


def dense_classes(model, images):
    """Classifies each patch of all images laid side by side.

    Returns:
        The large image, and the best class of each patch, by its scores' mean
        over a window around it, whose side is half an image's.
    """
    half = len(images) // 2
    large = np.vstack([np.hstack(images[:half]), np.hstack(images[-half:])])
    scores = analysis.dense_classifier(model)(large[None], training=False)
    window = max(scores.shape[1] // 4, 1)
    scores = ops.average_pool(scores, window, 1, "same")
    return large, ops.convert_to_numpy(ops.argmax(scores[0], -1))


def draw(folder, model, images, names, **options):
    """Draws all pictures into a folder."""
    maps = feature_maps(model, images[0])
    found = analysis.class_activation_map(model, images)
    large, classes = dense_classes(model, images)
    analysis.save_feature_maps(
        folder / "feature_maps.png", images[0], maps, **options
    )
    analysis.save_activation_maps(
        folder / "activation_maps.png", images, found, names, **options
    )
    analysis.save_label_map(
        folder / "dense_classes.png", large, classes, names, **options
    )
    analysis.save_patch_filters(folder / "patch_filters.png", model, **options)
    analysis.save_depthwise_filters(
        folder / "depthwise_filters.png", model, **options
    )
    analysis.save_receptive_fields(
        folder / "receptive_fields.png", model, images[0], **options
    )


def main(argv):
    """Looks inside as the flags say."""
    launch.start(argv)
    opened = models.open_model(_MODEL.value, _IMAGE_SIZE.value)
    model, names = opened.model, opened.class_names
    crop_fraction = run_flags.given(_CROP, opened.crop_fraction)
    images = read_images(
        model, crop_fraction or data.CROP_FRACTION, opened.orientation
    )
    folder = pathlib.Path(_OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        path = folder / name
        check_destination(path, (path.suffix,), _OVERWRITE.value)
    logging.info("Drawing with %d images", len(images))
    draw(folder, model, images, names, overwrite=_OVERWRITE.value)
    rows = analysis.layer_costs(model, images.shape[1:])
    for suffix in ("md", "csv", "json"):
        path = folder / f"costs.{suffix}"
        analysis.save_costs(path, rows, overwrite=_OVERWRITE.value)
    print(analysis.costs_table(rows))
    print(*(folder / name for name in FILES), sep="\n")


if __name__ == "__main__":
    launch.run(main)
