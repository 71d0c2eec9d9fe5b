"""Compares ways to teach a ConvMixer the classes of a few hundred images.

    python recipes/benchmark_finetune.py --task cifar10_three --data CIFAR

Ways: the model as it is, where it knows the classes; scikit-learn's logistic
regression on its pooled features, of all training images; `finetune` with
`frozen`; `finetune`; and a transfer-learning loop of stock Keras (three epochs
of the head, two of all weights). All get the same training images; `finetune`
sets its validation images aside from these. The accuracy is of other images.

Tasks, each with `--seeds` drawings of the training images:

- `cifar10_three`: bird, cat and dog, 150 images each; CIFAR has
  `train/CLASS/*.jpg` and `test/CLASS/*.jpg`.
- `cifar10_four`: frog, horse, ship and truck, 100 images each, for `--model`, a
  run of `train_cifar10.py` that was trained on the other six.
- `photos`: birds, dogs and reptiles, two thirds of what there is; `--data` has
  `WNID/*.JPEG`, folders that are called as ImageNet's classes.
- `digits`: scikit-learn's digits in random colors, 50 images each.

The results of a task are added to `--output`. Time and result: see
results/finetune.json.
"""

import json
import os
import pathlib
import tempfile
import time

import keras
import launch
import numpy as np
import tensorflow as tf
from absl import flags
from sklearn.linear_model import LogisticRegression

from convmixer_tf.data import Splits
from convmixer_tf.data import open_dataset
from convmixer_tf.data import read_images
from convmixer_tf.data.datasets import ImageList
from convmixer_tf.data.samples import open_files
from convmixer_tf.data.splits import divide
from convmixer_tf.files import dump_json
from convmixer_tf.models import open_model
from convmixer_tf.preprocessing import imagenet_classes
from convmixer_tf.preprocessing import match_classes
from convmixer_tf.training import finetune

TASKS = ("cifar10_three", "cifar10_four", "photos", "digits")
_TASK = flags.DEFINE_enum("task", None, TASKS, "What to learn.", required=True)
_DATA = flags.DEFINE_string("data", None, "Folder of the images.")
_MODEL = flags.DEFINE_string("model", "256_8", "What to start from.")
_SEEDS = flags.DEFINE_integer("seeds", 5, "Drawings of training images.", 1)
_OUTPUT = flags.DEFINE_string(
    "output", "recipes/results/finetune.json", "File of the results."
)

# Indices of ImageNet's classes.
_PHOTOS = {
    "bird": [*range(7, 25), *range(80, 101), *range(127, 147)],
    "dog": range(151, 269),
    "reptile": range(33, 69),
}


def cifar10(classes, count, seed):
    """Draws `count` training images of each class; all test images."""
    parts = []
    for split in ("train", "test"):
        dataset = open_dataset(_DATA.value, split)
        names = np.array(dataset.class_names)[dataset.labels.numpy()]
        rng = np.random.default_rng(seed)
        chosen = [
            rng.permutation(np.flatnonzero(names == name))[
                : count if split == "train" else None
            ]
            for name in classes
        ]
        labels = np.repeat(np.arange(len(classes)), [len(x) for x in chosen])
        part = dataset.select(np.concatenate(chosen))
        parts.append((part, labels))
    return [
        ImageList(x.names, tf.constant(labels), tuple(classes), x.contents)
        for x, labels in parts
    ]


def photos(seed):
    """Draws two thirds of the photographs to train on."""
    paths, labels = [], []
    index = {c.wnid: i for i, c in enumerate(imagenet_classes())}
    for path in sorted(pathlib.Path(_DATA.value).glob("*/*.JPEG")):
        for label, group in enumerate(_PHOTOS.values()):
            if index.get(path.parent.name) in group:
                paths.append(str(path))
                labels.append(label)
    order = np.random.default_rng(seed).permutation(len(paths))
    dataset = ImageList(
        open_files(paths).names, tf.constant(labels, tf.int64), tuple(_PHOTOS)
    )
    first = 2 * len(paths) // 3
    return dataset.select(order[:first]), dataset.select(order[first:])


def digits(seed):
    """Colors digits; draws 50 of each class to train on."""
    parts = [open_dataset("digits", split) for split in ("train", "test")]
    rng = np.random.default_rng(seed)
    colored = []
    for part in parts:
        contents = []
        for encoded in part.contents.numpy():
            gray = tf.io.decode_png(encoded, channels=1)
            ink = tf.image.resize(gray, (32, 32), "bicubic") / 255
            ink = np.clip(ink, 0, 1)
            dark, light = (
                rng.uniform((0,) * 3, (128,) * 3),
                rng.uniform(128, 255, 3),
            )
            if rng.random() < 0.5:
                dark, light = light, dark
            pixels = np.round(light * ink + dark * (1 - ink)).astype("uint8")
            contents.append(tf.io.encode_png(pixels).numpy())
        colored.append(
            ImageList(
                part.names,
                part.labels,
                part.class_names,
                tf.constant(contents),
            )
        )
    labels = colored[0].labels.numpy()
    chosen = [
        rng.permutation(np.flatnonzero(labels == k))[:50] for k in range(10)
    ]
    return colored[0].select(np.concatenate(chosen)), colored[1]


def draw(seed):
    """Returns the training and the test images of the task."""
    if _TASK.value == "photos":
        return photos(seed)
    if _TASK.value == "digits":
        return digits(seed)
    if _TASK.value == "cifar10_three":
        return cifar10(("bird", "cat", "dog"), 150, seed)
    return cifar10(("frog", "horse", "ship", "truck"), 100, seed)


def untouched(opened, test):
    """Asks the model as it is for the classes, if it knows them."""
    try:
        outputs = match_classes(
            test.class_names, opened.class_names, opened.model.output_shape[-1]
        )
    except ValueError:
        return None
    images, labels = _pixels(opened, test)
    answers = opened.model.predict(images, verbose=0)[:, outputs]
    return float(np.mean(answers.argmax(-1) == labels)), None


def probe(opened, train, test):
    """Fits scikit-learn's logistic regression to the pooled features."""
    model = opened.model
    body = keras.Model(model.inputs, model.get_layer("avg_pool").output)
    parts = [_pixels(opened, x) for x in (train, test)]
    features = [body.predict(images, verbose=0) for images, _ in parts]
    head = LogisticRegression(max_iter=1000).fit(features[0], parts[0][1])
    return float(head.score(features[1], parts[1][1])), None


def ours(opened, train, test, seed, frozen):
    """Calls `finetune`."""
    fitted, validation = divide(train, 0.2, seed)
    splits = Splits(fitted, validation, test)
    with tempfile.TemporaryDirectory() as folder:
        result = finetune(
            splits, opened, folder, frozen=frozen, seed=seed, strategy="one"
        )
        images, labels = _pixels(opened, test)
        answers = result.model.predict(images, verbose=0)
    return float(np.mean(answers.argmax(-1) == labels)), result.report["kept"]


def stock_keras(opened, train, test, seed):
    """Trains by `compile` and `fit`: the head first, then all weights."""
    keras.utils.set_random_seed(seed)
    (images, labels), (others, expected) = (
        _pixels(opened, x) for x in (train, test)
    )
    source = keras.models.clone_model(opened.model)
    source.set_weights(opened.model.get_weights())
    body = keras.Model(source.inputs, source.get_layer("avg_pool").output)
    model = keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal"),
            body,
            keras.layers.Dense(len(train.class_names), "softmax"),
        ]
    )
    for trainable, rate, epochs in ((False, 1e-3, 3), (True, 1e-5, 2)):
        body.trainable = trainable
        model.compile(
            keras.optimizers.Adam(rate), "sparse_categorical_crossentropy"
        )
        model.fit(images, labels, epochs=epochs, verbose=0)
    answers = model.predict(others, verbose=0).argmax(-1)
    return float(np.mean(answers == expected)), None


def _pixels(opened, dataset):
    """Reads images as the model is evaluated."""
    return read_images(
        dataset,
        opened.model.input_shape[1],
        crop_fraction=opened.crop_fraction,
        orientation=opened.orientation,
    )


def compare(opened, seed, rows):
    """Runs all ways with one drawing, and adds their results to `rows`."""
    train, test = draw(seed)
    ways = {
        "untouched": lambda: untouched(opened, test),
        "probe": lambda: probe(opened, train, test),
        "frozen": lambda: ours(opened, train, test, seed, True),
        "full": lambda: ours(opened, train, test, seed, False),
        "stock Keras": lambda: stock_keras(opened, train, test, seed),
    }
    for name, way in ways.items():
        start = time.process_time()
        result = way()
        seconds = time.process_time() - start
        if result is not None:
            top1, kept = result
            row = rows.setdefault(name, {"top1": [], "seconds": [], "kept": []})
            row["top1"].append(top1)
            row["seconds"].append(round(seconds, 1))
            row["kept"].append(kept)
            print(f"{_TASK.value}, seed {seed}, {name}: {top1:.4f}", flush=True)
    return len(train), len(test)


def save(rows, images):
    """Adds what there is of the task to the results."""
    results = {}
    if os.path.exists(_OUTPUT.value):
        results = json.loads(pathlib.Path(_OUTPUT.value).read_text())
    results[_TASK.value] = {
        "model": os.path.basename(_MODEL.value.rstrip("/")),
        "train_images": images[0],
        "test_images": images[1],
        "ways": {
            name: {
                **row,
                "mean": float(np.mean(row["top1"])),
                "standard_deviation": float(np.std(row["top1"], ddof=1))
                if len(row["top1"]) > 1
                else None,
                "mean_seconds": float(np.mean(row["seconds"])),
            }
            for name, row in rows.items()
        },
    }
    dump_json(_OUTPUT.value, results)


def main(argv):
    """Runs the ways in turns, and saves the results after each drawing."""
    launch.start(argv)
    opened = open_model(_MODEL.value)
    rows = {}
    for seed in range(_SEEDS.value):
        images = compare(opened, seed, rows)
        save(rows, images)


if __name__ == "__main__":
    launch.run(main)
