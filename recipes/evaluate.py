"""Measures a classifier in a file: top-1, top-5, classes, confusion.

    python recipes/evaluate.py --model runs/mine/model.keras --data FOLDER

`--model` is a `.keras` file, a SavedModel's folder, a `.tflite` file, or the
name of a pretrained variant: 1536_20, 768_32, 1024_20. Prints the accuracy
and writes `scores.json` and `confusion.png` to `--output`.

Time: that of the forward pass; BUILD.md has images per second. Result: see
`recipes/results/`.
"""

import functools
import json
import os
import time

import keras
import launch
import matplotlib.figure
import numpy as np
import run_flags
import tensorflow as tf
from absl import flags

import convmixer_tf
from convmixer_tf import data
from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import read_metadata
from convmixer_tf.files import replaced
from convmixer_tf.preprocessing import match_classes
from convmixer_tf.training import evaluate_function
from convmixer_tf.training import read_class_names
from convmixer_tf.validation import check_positive_integer

VARIANTS = ("1536_20", "768_32", "1024_20")

_MODEL = flags.DEFINE_string("model", None, "What to measure.", required=True)
_DATA = flags.DEFINE_string(
    "data", "imagenet2012", "Folder, or name in tensorflow-datasets."
)
_SPLIT = flags.DEFINE_string("split", "validation", "Which part of the data.")
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "Side, in pixels. Default: a .keras file's, or else 224.",
)
_CROP = flags.DEFINE_float(
    "crop_fraction", data.CROP_FRACTION, "Part of an image's side to keep."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images at a time.")
_OUTPUT = flags.DEFINE_string(
    "output", "runs/evaluation", "Folder for the figures."
)


def load(name, image_size):
    """Loads a classifier.

    Args:
        name: What `--model` may be.
        image_size: Side of the images, in pixels, or `None` for the model's.

    Returns:
        A function from a batch of images to logits or probabilities, the
        number of classes, their names or `None`, and the side of the images.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If it can't be read, or is not of such images.
    """
    if name in VARIANTS:
        build = getattr(convmixer_tf, f"ConvMixer{name}")
        size = image_size or 224
        return _keras_model(build(input_shape=(size, size, 3)), size)
    if not os.path.exists(name):
        raise FileNotFoundError(
            f"--model must be a file, a SavedModel's folder or one of "
            f"{', '.join(VARIANTS)}. Received: {name!r}"
        )
    if name.endswith(".tflite"):
        predict = LiteRTModel(name, num_threads=os.cpu_count()).predict
        names = _tflite_class_names(name)
        return _probed(predict, image_size or 224, names)
    if os.path.isdir(name):
        loaded = _read(tf.saved_model.load, name)
        # Not `loaded.serve` alone, which does not keep the rest.
        return _probed(lambda images: loaded.serve(images), image_size or 224)
    model = _read(keras.saving.load_model, name)
    return _keras_model(model, image_size, read_class_names(name))


def _read(load_model, name):
    try:
        return load_model(name)
    except Exception as error:  # From a damaged file: of many kinds.
        raise ValueError(
            f"Cannot read a model from {name!r}. {error}"
        ) from error


def _keras_model(model, image_size, class_names=None):
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] != 3:
        raise ValueError(
            "The model must take images of 3 channels, which is what the data "
            f"are made into. Received: a model with input_shape={shape}"
        )
    height, width = shape[1:3]
    size = image_size or height or 224
    if (height or size, width or size) != (size, size):
        raise ValueError(
            f"The model takes images of {height} x {width} pixels. "
            f"Received: --image_size={image_size}"
        )
    predict = tf.function(functools.partial(model, training=False))
    return predict, model.output_shape[-1], class_names, size


def _tflite_class_names(path):
    """Reads the names in a file that takes pixels as they are."""
    metadata = read_metadata(path)
    if metadata is None:
        return None
    if (set(metadata.mean), set(metadata.std)) != ({0.0}, {1.0}):
        raise ValueError(
            f"`{path}` does not take pixels in [0, 255]: its metadata ask for "
            f"mean={metadata.mean}, std={metadata.std}"
        )
    return metadata.class_names


def _probed(predict, size, class_names=None):
    """Finds the number of classes of what only runs."""
    try:
        scores = predict(np.zeros((1, size, size, 3), np.float32))
    except Exception as error:  # Of many kinds: it runs whatever it is.
        raise ValueError(
            f"The model does not take images of {size} x {size} pixels: choose "
            f"another --image_size. {error}"
        ) from error
    return predict, np.shape(scores)[-1], class_names, size


def draw_confusion(path, confusion, class_names):
    """Draws, as a PNG, which classes are taken for which."""
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    figure = matplotlib.figure.Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="prediction", ylabel="label")
    if len(class_names) <= 30:
        axes.set_xticks(range(len(class_names)), class_names, rotation=90)
        axes.set_yticks(range(len(class_names)), class_names)
    figure.colorbar(image, label="fraction of the label's images")
    with replaced(path) as unfinished:
        figure.savefig(unfinished, dpi=110)


def check_flags():
    """Raises `ValueError` or `NotADirectoryError` for what can't work."""
    if _IMAGE_SIZE.value is not None:
        check_positive_integer("image_size", _IMAGE_SIZE.value)
    if os.path.isfile(_OUTPUT.value):
        raise NotADirectoryError(
            f"The output must be a folder. Received: --output={_OUTPUT.value}"
        )


def main(argv):
    """Evaluates as the flags say."""
    run_flags.begin(argv)
    check_flags()
    (dataset,) = run_flags.open_datasets(_DATA.value, _SPLIT.value)
    predict, count, model_names, size = load(_MODEL.value, _IMAGE_SIZE.value)
    outputs = match_classes(dataset.class_names, model_names, count)
    batches = data.evaluation_batches(
        dataset,
        size,
        _BATCH_SIZE.value,
        crop_fraction=_CROP.value,
    )
    start = time.perf_counter()
    scores = evaluate_function(predict, batches, count, outputs)
    seconds = time.perf_counter() - start

    os.makedirs(_OUTPUT.value, exist_ok=True)
    per_class = scores.per_class[outputs]
    report = {
        "model": _MODEL.value,
        "data": f"{_DATA.value}, {_SPLIT.value}",
        "image_size": size,
        "crop_fraction": _CROP.value,
        **scores.summary(),
        "images_per_second": scores.images / seconds,
        "per_class": dict(
            zip(dataset.class_names, _json(per_class), strict=True)
        ),
    }
    path = os.path.join(_OUTPUT.value, "scores.json")
    with replaced(path) as unfinished, open(unfinished, "w") as file:
        json.dump(report, file, indent=1)
    picture = os.path.join(_OUTPUT.value, "confusion.png")
    draw_confusion(
        picture,
        scores.confusion[np.ix_(outputs, outputs)],
        dataset.class_names,
    )
    print(
        f"{scores.images} images of {size} pixels, central crop of "
        f"{_CROP.value:g}: top-1 {scores.top1:.2%}, top-5 {scores.top5:.2%}, "
        f"loss {scores.loss:.4f}\n{path}\n{picture}"
    )


def _json(values):
    """NaN, the accuracy of a class without images, is none of JSON's."""
    return [None if np.isnan(value) else float(value) for value in values]


if __name__ == "__main__":
    launch.run(main)
