"""Evaluates a classifier: top-1, top-5, per-class accuracy, confusion.

    convmixer evaluate --model runs/mine/model.keras --data FOLDER

`--model` is a `.keras` or `.tflite` file, a SavedModel, TF Hub module or run
folder, or the name of a pretrained variant: 1536_20, 768_32, 1024_20, 512_16,
256_8. The command prints the accuracy and writes `scores.json` and
`confusion.png` beside the model, or to the folder in `--output`.

Time: the forward pass. recipes/results/README.md has times per image.
"""

import json
import os
import pathlib
import time

import numpy as np
from absl import flags

from convmixer_tf import data
from convmixer_tf import progress
from convmixer_tf.cli.launch import start
from convmixer_tf.data.cropping import CROP_FRACTION
from convmixer_tf.data.decoding import ORIENTATION
from convmixer_tf.files import replaced
from convmixer_tf.inference.classifiers import load_classifier
from convmixer_tf.model_card import kept_part
from convmixer_tf.models.rebuilding import find_model
from convmixer_tf.models.variants import VARIANTS
from convmixer_tf.preprocessing import match_classes
from convmixer_tf.training import evaluate_function
from convmixer_tf.validation import ORIENTATIONS
from convmixer_tf.validation import check_positive_integer

_MODEL = flags.DEFINE_string("model", None, "Model.", required=True)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Data directory of tensorflow-datasets."
)
_DATA = flags.DEFINE_string(
    "data", "imagenet2012", "Folder, table, or name in tensorflow-datasets."
)
_SPLIT = flags.DEFINE_string("split", "validation", "Split of the data.")
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "Image size, in pixels. Default: the model's, or else 224.",
)
_CROP = flags.DEFINE_float(
    "crop_fraction",
    None,
    "Fraction of an image's side to keep. Default: the model's, or else "
    f"{CROP_FRACTION}.",
)
_ORIENTATION = flags.DEFINE_enum(
    "orientation",
    None,
    ORIENTATIONS,
    "Rotate images as their EXIF says, or read pixels as stored, as for "
    f"published ImageNet accuracies. Default: the model's, else {ORIENTATION}.",
)
_FLIP = flags.DEFINE_bool(
    "flip",
    False,
    "Average the predictions of an image and its mirror image (2 x the time).",
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images per batch.")
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Folder for the results. Default: evaluation in a run folder, "
    "NAME_evaluation beside another file, runs/evaluation for a variant.",
)


def output_folder(model):
    """Returns the default folder for the results of a model.

    Args:
        model: Value of `--model`.

    Returns:
        A `pathlib.Path`.
    """
    if model in VARIANTS:
        return pathlib.Path("runs", "evaluation")
    path = pathlib.Path(find_model(model))
    runs = ("config.json", "finetune.json")  # From `train` and `finetune`.
    if path.name == "model.keras" and any(
        (path.parent / name).is_file() for name in runs
    ):
        return path.parent / "evaluation"
    return path.absolute().with_name(f"{path.name}_evaluation")


def import_matplotlib():
    """Imports matplotlib, or raises `ImportError` with instructions."""
    try:
        import matplotlib.figure
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib. Install the extra: "
            'pip install "convmixer_tf[train]"'
        ) from error
    return matplotlib


def draw_confusion(confusion, class_names, title):
    """Draws the confusion matrix as a matplotlib figure."""
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    figure = import_matplotlib().figure.Figure(
        figsize=(8, 7), layout="constrained"
    )
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="prediction", ylabel="label")
    if len(class_names) <= 30:
        axes.set_xticks(range(len(class_names)), class_names, rotation=90)
        axes.set_yticks(range(len(class_names)), class_names)
    if len(class_names) <= 12:
        for (row, column), count in np.ndenumerate(confusion):
            color = "white" if share[row, column] > 0.5 else "black"
            text = f"{count:,}"
            axes.text(column, row, text, color=color, ha="center", va="center")
    axes.set_title(title)
    figure.colorbar(image, label="fraction of the label's images")
    return figure


def averaged_over_flips(predict):
    """Makes a function average the predictions of images and mirror images.

    Args:
        predict: Function from images (batch, height, width, channels) to
            probabilities (batch, classes).

    Returns:
        A function with the same signature.
    """
    return lambda images: (predict(images) + predict(images[:, :, ::-1])) / 2


def check_flags(output):
    """Raises an error for invalid flags."""
    import_matplotlib()
    if _IMAGE_SIZE.value is not None:
        check_positive_integer("image_size", _IMAGE_SIZE.value)
    if os.path.isfile(output):
        raise NotADirectoryError(
            f"The output must be a folder. Received: --output={output}"
        )


def main(argv):
    """Evaluates the model."""
    start(argv)
    output = _OUTPUT.value or output_folder(_MODEL.value)
    check_flags(output)
    dataset = _open_dataset()
    progress.note("loading %s", _MODEL.value)
    model = load_classifier(
        _MODEL.value, _IMAGE_SIZE.value, _CROP.value, _ORIENTATION.value
    )
    outputs = match_classes(
        dataset.class_names, model.class_names, model.classes
    )
    batches = data.evaluation_batches(
        dataset,
        model.image_size,
        _BATCH_SIZE.value,
        crop_fraction=model.crop_fraction,
        orientation=model.orientation,
    )
    begin = time.perf_counter()
    try:
        scores = evaluate_function(
            averaged_over_flips(model.predict)
            if _FLIP.value
            else model.predict,
            *(batches, model.classes, outputs),
            activation="softmax",  # It returns probabilities.
        )
    except ValueError as error:
        raise ValueError(f"{_MODEL.value}: {error}") from error
    seconds = time.perf_counter() - begin

    os.makedirs(output, exist_ok=True)
    report = {
        "model": _MODEL.value,
        "data": f"{_DATA.value}, {_SPLIT.value}",
        "image_size": model.image_size,
        "crop_fraction": model.crop_fraction,
        "orientation": model.orientation,
        "flip": _FLIP.value,
        **scores.summary(),
        "images_per_second": scores.images / seconds,
        "per_class": _by_name(dataset.class_names, scores.per_class[outputs]),
    }
    path = os.path.join(output, "scores.json")
    with replaced(path) as unfinished, open(unfinished, "w") as file:
        json.dump(report, file, indent=1)
    measured = f"{scores.images:,} images: top-1 {scores.top1:.2%}"
    if dataset.multi_label:
        precision = scores.mean_average_precision
        measured += f", mean average precision {precision:.4f}"
    picture = os.path.join(output, "confusion.png")
    figure = draw_confusion(
        scores.confusion[np.ix_(outputs, outputs)],
        dataset.class_names,
        measured,
    )
    with replaced(picture) as unfinished:
        figure.savefig(unfinished, dpi=110, bbox_inches="tight")
    if model.classes > 5:  # With fewer, it is always 100 %.
        measured += f", top-5 {scores.top5:.2%}"
    flipped = ", each image and its mirror image" if _FLIP.value else ""
    print(
        f"{measured}, loss {scores.loss:.4f}, with {model.image_size} pixels "
        f"of {kept_part(model.crop_fraction)}{flipped}\n{path}\n{picture}"
    )


def _open_dataset():
    try:
        return data.open_dataset(
            _DATA.value, _SPLIT.value, data_dir=_DATA_DIR.value
        )
    except ValueError as error:
        raise ValueError(f"{error} (`--split`)") from error


def _by_name(names, values):
    """Replaces NaN, the accuracy of a class without images, for JSON."""
    return {
        name: None if np.isnan(value) else float(value)
        for name, value in zip(names, values, strict=True)
    }
