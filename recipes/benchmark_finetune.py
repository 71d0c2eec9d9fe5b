"""Compares methods of fine-tuning a ConvMixer on a few hundred images.

    python recipes/benchmark_finetune.py --task cifar10_three --data CIFAR

The methods are: the pretrained model, if it knows the classes; scikit-learn's
logistic regression on its pooled features of all training images; `finetune`
with `frozen`; `finetune`; and a transfer-learning loop with stock Keras (three
epochs of the head, two of all weights). All use the same training images;
`finetune` takes its validation images from them. The accuracy is measured on
test images. The model of `finetune` is also exported as an int8 TFLite file,
calibrated on training images, and its accuracy is measured in LiteRT.

Each task is repeated with `--seeds` random samples of the training images:

- `cifar10_three`: bird, cat and dog, 150 images each; CIFAR has
  `train/CLASS/*.jpg` and `test/CLASS/*.jpg`.
- `cifar10_four`: frog, horse, ship and truck, 100 images each. `--model` is
  a run of `train_cifar10.py` that was trained on the other six classes.
- `photos`: birds, dogs and reptiles, two thirds of the images. `--data` has
  `WNID/*.JPEG`, folders with the WordNet identifiers of ImageNet's classes.
- `digits`: scikit-learn's digits in random colors, 50 images each.

The results of a task are added to `--output`. For time and result, see
results/finetune.json.
"""

import dataclasses
import json
import os
import pathlib
import tempfile
import time

import keras
import launch
import numpy as np
from absl import flags
from sklearn.linear_model import LogisticRegression

from convmixer_tf.data import open_dataset
from convmixer_tf.data import read_images
from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import export_tflite
from convmixer_tf.models import open_model
from convmixer_tf.preprocessing import decode_predictions
from convmixer_tf.preprocessing import match_classes
from convmixer_tf.training import finetune

TASKS = ("cifar10_three", "cifar10_four", "photos", "digits")
_TASK = flags.DEFINE_enum("task", None, TASKS, "Task.", required=True)
_DATA = flags.DEFINE_string("data", None, "Folder of the images.")
_MODEL = flags.DEFINE_string("model", "256_8", "Pretrained model.")
_SEEDS = flags.DEFINE_integer("seeds", 5, "Samples of training images.", 1)
_OUTPUT = flags.DEFINE_string(
    "output", "recipes/results/finetune.json", "JSON file of the results."
)

# Indices of ImageNet's classes.
_PHOTOS = {
    "bird": [*range(7, 25), *range(80, 101), *range(127, 147)],
    "dog": range(151, 269),
    "reptile": range(33, 69),
}


def write_cifar10(folder, classes, count, seed):
    """Links `count` training images of each class, and 400 test images."""
    rng = np.random.default_rng(seed)
    for split in ("train", "test"):
        for name in classes:
            paths = sorted(pathlib.Path(_DATA.value, split, name).iterdir())
            order = rng.permutation(len(paths))
            chosen = order[: count if split == "train" else 400]
            link([paths[i] for i in chosen], folder / split / name)


def write_photos(folder, seed):
    """Links two thirds of the photographs for training, the rest for tests."""
    rows = []
    for index, [(wnid, *_)] in enumerate(decode_predictions(np.eye(1000), 1)):
        for name, group in _PHOTOS.items():
            if index in group:
                paths = pathlib.Path(_DATA.value, wnid).glob("*")
                rows += [(name, path) for path in sorted(paths)]
    order = np.random.default_rng(seed).permutation(len(rows))
    for number, i in enumerate(order):
        split = "train" if number < 2 * len(rows) // 3 else "test"
        link([rows[i][1]], folder / split / rows[i][0])


def write_digits(folder, seed):
    """Writes colored digits: 50 of each for training, and the held-out ones."""
    rng = np.random.default_rng(seed)
    for split in ("train", "test"):
        digits, labels = read_images(
            open_dataset("digits", split), 32, crop_fraction=1.0
        )
        for label in range(10):
            indices = rng.permutation(np.flatnonzero(labels == label))
            place = folder / split / str(label)
            place.mkdir(parents=True)
            for i in indices[: 50 if split == "train" else None]:
                dark, light = rng.uniform(0, 128, 3), rng.uniform(128, 255, 3)
                back, ink = rng.permutation([dark, light])
                image = back + (ink - back) * (digits[i] / 255)
                keras.utils.save_img(place / f"{i}.png", image, scale=False)


def link(paths, folder):
    """Creates a folder with links to files."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        (folder / path.name).symlink_to(path.absolute())


def write(folder, seed):
    """Writes a sample of the task as `train/CLASS` and `test/CLASS`."""
    if _TASK.value == "photos":
        write_photos(folder, seed)
    elif _TASK.value == "digits":
        write_digits(folder, seed)
    elif _TASK.value == "cifar10_three":
        write_cifar10(folder, ("bird", "cat", "dog"), 150, seed)
    else:
        write_cifar10(folder, ("frog", "horse", "ship", "truck"), 100, seed)


def untouched(opened, data):
    """Evaluates the pretrained model if it knows the classes."""
    try:
        outputs = match_classes(
            data.names, opened.class_names, opened.model.output_shape[-1]
        )
    except ValueError:
        return None
    answers = opened.model.predict(data.test[0], verbose=0)[:, outputs]
    return {"top1": top1(answers, data)}


def probe(opened, data):
    """Fits scikit-learn's logistic regression to the pooled features."""
    model = opened.model
    body = keras.Model(model.inputs, model.get_layer("avg_pool").output)
    train, test = (
        body.predict(images, verbose=0)
        for images in (data.train[0], data.test[0])
    )
    head = LogisticRegression(max_iter=1000).fit(train, data.train[1])
    return {"top1": head.score(test, data.test[1])}


def frozen(opened, data, seed):
    """Calls `finetune` for only the head."""
    with tempfile.TemporaryDirectory() as output:
        result = finetune(data.folder, opened, output, frozen=True, seed=seed)
    return {"top1": result.report["test"]["top1"]}


def full(opened, data, seed):
    """Calls `finetune`. The seconds do not include the export."""
    with tempfile.TemporaryDirectory() as output:
        start = time.process_time()
        result = finetune(data.folder, opened, output, seed=seed)
        seconds = time.process_time() - start
        path = os.path.join(output, "int8.tflite")
        export_tflite(
            result.model,
            path,
            quantization="int8",
            calibration_images=data.train[0][:300].astype("float32"),
        )
        answers = LiteRTModel(path).predict(data.test[0])
    return {
        "top1": result.report["test"]["top1"],
        "kept": result.report["kept"],
        "int8_top1": top1(answers, data),
        "seconds": seconds,
    }


def stock_keras(opened, data, seed):
    """Trains with `compile` and `fit`: the head first, then all weights."""
    keras.utils.set_random_seed(seed)
    source = keras.models.clone_model(opened.model)
    source.set_weights(opened.model.get_weights())
    body = keras.Model(source.inputs, source.get_layer("avg_pool").output)
    flip = keras.layers.RandomFlip("horizontal")
    head = keras.layers.Dense(len(data.names), "softmax")
    model = keras.Sequential([flip, body, head])
    for trainable, rate, epochs in ((False, 1e-2, 3), (True, 1e-5, 2)):
        body.trainable = trainable
        model.compile(
            keras.optimizers.Adam(rate), "sparse_categorical_crossentropy"
        )
        model.fit(*data.train, epochs=epochs, verbose=0)
    return {"top1": top1(model.predict(data.test[0], verbose=0), data)}


def top1(answers, data):
    """Computes the accuracy on the test images."""
    return np.mean(answers.argmax(-1) == data.test[1])


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A sample of the task, as files and as pixels and labels."""

    folder: str
    names: tuple
    train: tuple
    test: tuple


def read(folder, opened):
    """Reads a sample. Its training images are not split."""
    parts = [open_dataset(folder, split) for split in ("train", "test")]
    pixels = [
        read_images(
            part,
            opened.model.input_shape[1],
            crop_fraction=opened.crop_fraction,
            orientation=opened.orientation,
        )
        for part in parts
    ]
    return Drawing(folder, parts[0].class_names, *pixels)


def compare(opened, data, seed, rows):
    """Runs all methods on a sample and adds their results to `rows`."""
    ways = {
        "untouched": lambda: untouched(opened, data),
        "probe": lambda: probe(opened, data),
        "frozen": lambda: frozen(opened, data, seed),
        "full": lambda: full(opened, data, seed),
        "stock Keras": lambda: stock_keras(opened, data, seed),
    }
    for name, way in ways.items():
        start = time.process_time()
        result = way()
        if result is None:
            continue
        result.setdefault("seconds", time.process_time() - start)
        row = rows.setdefault(name, {key: [] for key in result})
        for key, value in result.items():
            value = value if key == "kept" else round(float(value), 4)
            row[key].append(value)
        print(f"{_TASK.value}, seed {seed}, {name}: {row['top1'][-1]:.4f}")


def save(rows, data):
    """Adds the rows of the task to the results file."""
    results = {}
    if os.path.exists(_OUTPUT.value):
        results = json.loads(pathlib.Path(_OUTPUT.value).read_text())
    ways = {}
    for name, row in rows.items():
        ways[name] = {
            **row,
            "mean": float(np.mean(row["top1"])),
            "standard_deviation": float(np.std(row["top1"], ddof=1))
            if len(row["top1"]) > 1
            else None,
            "mean_seconds": float(np.mean(row["seconds"])),
        }
        if "int8_top1" in row:
            ways[name]["int8_mean"] = float(np.mean(row["int8_top1"]))
    results[_TASK.value] = {
        "model": os.path.basename(_MODEL.value.rstrip("/")),
        "train_images": len(data.train[1]),
        "test_images": len(data.test[1]),
        "ways": ways,
    }
    text = json.dumps(results, indent=1) + "\n"
    pathlib.Path(_OUTPUT.value).write_text(text, encoding="utf-8")


def main(argv):
    """Runs the methods in turn and saves the results after each sample."""
    launch.start(argv)
    opened = open_model(_MODEL.value)
    rows = {}
    for seed in range(_SEEDS.value):
        with tempfile.TemporaryDirectory() as folder:
            write(pathlib.Path(folder), seed)
            data = read(folder, opened)
            compare(opened, data, seed, rows)
        save(rows, data)


if __name__ == "__main__":
    launch.run(main)
