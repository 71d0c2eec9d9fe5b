"""Segments a photograph with a ConvMixer's features and a small head.

    python recipes/segment.py --model runs/cifar10

The photograph is `china.jpg` from scikit-learn. The labels are a few boxes that
were drawn by hand, below. A 1 x 1 convolution learns them from feature maps of
the model. Other boxes are for testing. The script compares features of the
patch embedding alone, which depend on single patches, with features of the last
block or of all blocks added. It writes `segment.png` (training boxes in white,
test boxes in yellow) and `segment.json`.

It shows how to get dense features and train on them. It is not a benchmark:
there is one image with few boxes, and color alone separates many classes.

Time: half a minute for a CIFAR-10 network. Result: `recipes/results/segment`.
"""

import json
import pathlib

import keras
import launch
import numpy as np
from absl import flags
from absl import logging
from keras import ops
from PIL import Image
from PIL import ImageDraw
from sklearn.datasets import load_sample_image

from convmixer_tf import analysis
from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced
from convmixer_tf.models import open_model
from convmixer_tf.validation import check_positive_integer

# Boxes (left, top, right, bottom), in pixels of the photograph: class ->
# training boxes, test boxes.
BOXES = {
    "sky": (
        [(380, 20, 620, 100)],
        [(15, 10, 90, 120), (350, 130, 540, 180)],
    ),
    "water": (
        [(390, 250, 535, 275)],
        [(12, 284, 58, 312), (352, 262, 380, 310)],
    ),
    "trees": (
        [(360, 340, 560, 420), (5, 190, 45, 250)],
        [(580, 200, 625, 400), (30, 365, 180, 420)],
    ),
    "tower": (
        [(105, 190, 300, 235), (90, 285, 300, 335)],
        [(135, 125, 290, 180), (180, 75, 235, 110), (220, 365, 300, 385)],
    ),
}
DRAWN = "patches and last block"

_MODEL = flags.DEFINE_string(
    "model", None, "A .keras file or a run folder.", required=True
)
_WIDTH = flags.DEFINE_integer(
    "width", 240, "Width of the resized photograph, in pixels.", 64
)
_STEPS = flags.DEFINE_integer("steps", 150, "Training steps of a head.")
_OUTPUT = flags.DEFINE_string("output", "runs/segment", "Folder to write.")
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Whether to replace existing files."
)


def rasterise(boxes, photograph, grid):
    """Labels the patches whose centers are in a box.

    Args:
        boxes: A list of boxes for each class.
        photograph: Tuple (width, height), the coordinate range of the boxes.
        grid: Tuple (height, width), in patches.

    Returns:
        Integer array of shape `grid`, -1 outside of all boxes.

    Raises:
        ValueError: If a class has no patch because patches are too large.
    """
    labels = np.full(grid, -1)
    rows = (np.arange(grid[0]) + 0.5) * photograph[1] / grid[0]
    columns = (np.arange(grid[1]) + 0.5) * photograph[0] / grid[1]
    for index, listed in enumerate(boxes):
        for left, top, right, bottom in listed:
            inside = np.outer(
                (top <= rows) & (rows < bottom),
                (left <= columns) & (columns < right),
            )
            labels[inside] = index
        if not (labels == index).any():
            raise ValueError(
                f"On a grid of {grid[0]} x {grid[1]} patches, no patch center "
                f"is in the boxes {listed}. Pass a larger --width."
            )
    return labels


def features_of(model, blocks, image):
    """Computes the features of each patch, (1, height, width, channels)."""
    extractor = analysis.feature_extractor(model, blocks)
    maps = extractor(image[None], training=False)
    # All blocks have the same resolution and width, so no resizing is needed.
    return ops.concatenate(list(maps.values()), axis=-1)


def train_head(features, labels, classes, steps):
    """Fits a 1 x 1 convolution to the labeled patches."""
    known = labels >= 0
    counts = np.bincount(labels[known], minlength=classes)
    # A large box must not outweigh a small one.
    weights = np.where(known, 1 / counts[labels], 0) * known.size / classes
    keras.utils.set_random_seed(0)
    head = keras.Sequential([keras.layers.Conv2D(classes, 1)])
    head.compile(
        keras.optimizers.AdamW(0.01, weight_decay=0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    head.fit(
        features,
        np.maximum(labels, 0)[None],
        sample_weight=weights[None],
        epochs=steps,
        verbose=0,
    )
    return head


def recall(scores, labels):
    """Computes the recall of each class over patches."""
    best = ops.convert_to_numpy(ops.argmax(scores[0], -1))
    shares = {
        name: float(np.mean(best[labels == index] == index))
        for index, name in enumerate(BOXES)
    }
    return {**shares, "mean": float(np.mean(list(shares.values())))}


def draw(path, photograph, scores):
    """Draws the photograph with its boxes and the predicted classes."""
    size = photograph.size[::-1]
    labels = ops.argmax(ops.image.resize(scores, size)[0], -1)
    image = photograph.copy()
    pen = ImageDraw.Draw(image)
    for pair in BOXES.values():
        for color, boxes in zip(("white", "yellow"), pair, strict=True):
            for box in boxes:
                pen.rectangle(box, outline=color, width=3)
    analysis.save_label_map(
        path,
        np.asarray(image),
        ops.convert_to_numpy(labels),
        list(BOXES),
        overwrite=_OVERWRITE.value,
    )


def segment(model, photograph, path):
    """Trains and tests a head on each set of features and draws one.

    Returns:
        Dictionary from names of features to the recall of each class.
    """
    height = round(photograph.height * _WIDTH.value / photograph.width)
    image = photograph.resize((_WIDTH.value, height), Image.Resampling.BICUBIC)
    everything = list(analysis.receptive_fields(model))
    results = {}
    for name, blocks in {
        "patches": everything[:1],
        DRAWN: [everything[0], everything[-1]],
        "patches and all blocks": everything,
    }.items():
        features = features_of(model, blocks, np.asarray(image))
        learn, test = (
            rasterise(boxes, photograph.size, tuple(features.shape[1:3]))
            for boxes in zip(*BOXES.values(), strict=True)
        )
        head = train_head(features, learn, len(BOXES), _STEPS.value)
        scores = head(features)
        results[name] = recall(scores, test)
        logging.info("%s: %.1f %%", name, 100 * results[name]["mean"])
        if name == DRAWN:
            draw(path, photograph, scores)
    return results


def main(argv):
    """Runs the segmentation."""
    launch.start(argv)
    check_positive_integer("steps", _STEPS.value)
    # A copy of the model that takes images of any size.
    model = analysis.dense_classifier(open_model(_MODEL.value).model)
    folder = pathlib.Path(_OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    picture, record = folder / "segment.png", folder / "segment.json"
    for path in (picture, record):
        check_destination(path, (path.suffix,), _OVERWRITE.value)
    photograph = Image.fromarray(load_sample_image("china.jpg"))
    results = segment(model, photograph, picture)
    report = {
        "model": model.name,
        "parameters": model.count_params(),
        "width": _WIDTH.value,
        "steps": _STEPS.value,
        "recall": results,
    }
    with replaced(record) as unfinished, open(unfinished, "w") as file:
        json.dump(report, file, indent=1)
    names = [*BOXES, "mean"]
    print(f"| recall in the test boxes | {' | '.join(names)} |")
    print(f"|{'---|' * (len(names) + 1)}")
    for name, found in results.items():
        cells = " | ".join(f"{found[key]:.1%}" for key in names)
        print(f"| {name} | {cells} |")
    print(picture, record, sep="\n")


if __name__ == "__main__":
    launch.run(main)
