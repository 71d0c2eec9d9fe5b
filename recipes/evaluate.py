"""Measures a classifier in a file: top-1, top-5, classes, confusion.

    python recipes/evaluate.py --model runs/mine/model.keras --data FOLDER

`--model` is a `.keras` or `.tflite` file, the folder of a SavedModel, a TF Hub
module or a run, or the name of a pretrained variant: 1536_20, 768_32, 1024_20,
256_8. Prints the accuracy and writes `scores.json` and `confusion.png` to
`--output`.

Time: that of the forward pass; BUILD.md has images per second. Result: see
`recipes/results/`.
"""

import json
import os
import time

import launch
import matplotlib.figure
import numpy as np
import run_flags
from absl import flags

from convmixer_tf import data
from convmixer_tf.files import replaced
from convmixer_tf.inference import load_classifier
from convmixer_tf.preprocessing import match_classes
from convmixer_tf.training import evaluate_function
from convmixer_tf.validation import check_positive_integer

_MODEL = flags.DEFINE_string("model", None, "What to measure.", required=True)
_DATA = flags.DEFINE_string(
    "data", "imagenet2012", "Folder, or name in tensorflow-datasets."
)
_SPLIT = flags.DEFINE_string("split", "validation", "Which part of the data.")
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "Side, in pixels. Default: the model's, or else 224.",
)
_CROP = flags.DEFINE_float(
    "crop_fraction",
    None,
    "Part of an image's side to keep. Default: the model's, or else "
    f"{data.CROP_FRACTION}.",
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images at a time.")
_OUTPUT = flags.DEFINE_string(
    "output", "runs/evaluation", "Folder for the figures."
)


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
    model = load_classifier(_MODEL.value, _IMAGE_SIZE.value, _CROP.value)
    outputs = match_classes(
        dataset.class_names, model.class_names, model.classes
    )
    batches = data.evaluation_batches(
        dataset,
        model.image_size,
        _BATCH_SIZE.value,
        crop_fraction=model.crop_fraction,
    )
    start = time.perf_counter()
    scores = evaluate_function(model.predict, batches, model.classes, outputs)
    seconds = time.perf_counter() - start

    os.makedirs(_OUTPUT.value, exist_ok=True)
    per_class = scores.per_class[outputs]
    report = {
        "model": _MODEL.value,
        "data": f"{_DATA.value}, {_SPLIT.value}",
        "image_size": model.image_size,
        "crop_fraction": model.crop_fraction,
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
        f"{scores.images} images of {model.image_size} pixels, central crop of "
        f"{model.crop_fraction:g}: top-1 {scores.top1:.2%}, "
        f"top-5 {scores.top5:.2%}, loss {scores.loss:.4f}\n{path}\n{picture}"
    )


def _json(values):
    """NaN, the accuracy of a class without images, is none of JSON's."""
    return [None if np.isnan(value) else float(value) for value in values]


if __name__ == "__main__":
    launch.run(main)
