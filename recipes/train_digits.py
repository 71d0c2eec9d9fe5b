"""Trains a small ConvMixer on digits and exports it for phones.

    python recipes/train_digits.py

The data set is scikit-learn's 1,797 handwritten digits of 8 x 8 pixels. They
ship with that package, so nothing is downloaded. A fifth is held out and used
only for the final evaluation, so the accuracy is that of new digits by the same
writers.

To resume a stopped run, run the same command. A finished run is exported again.

Time and result: see results/README.md, "Quickstart on digits".
"""

import json
import os
import time

# Before TensorFlow is imported, which logs messages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import curves
import keras
import launch
import matplotlib.figure
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from absl import logging

from convmixer_tf import ConvMixer
from convmixer_tf import data
from convmixer_tf import progress
from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import export_tflite
from convmixer_tf.files import replaced
from convmixer_tf.training import TrainConfig
from convmixer_tf.training import steps_per_epoch
from convmixer_tf.training import train_classifier

_OUTPUT = flags.DEFINE_string(
    "output", "runs/digits", "Folder for the model, the files and the results."
)
_EPOCHS = flags.DEFINE_integer(
    "epochs",
    3,
    "Epochs of eight passes over the training digits.",
    lower_bound=1,
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of everything that is random.")

SIZE = 8  # pixels
BATCH_SIZE = 64  # images
PASSES = 8  # per epoch, because each epoch has an overhead of a second
# Statistics of the training digits, scaled to [0, 1].
MEAN, STD = 0.3054, 0.3760
# Shifts each digit by up to one pixel.
AUGMENTATION = data.Augmentation(crop=data.PadAndCrop(padding=1), flip=0.0)


def build_model(classifier_activation="softmax"):
    """Builds a ConvMixer-96/4 for 4 x 4 patches of 2 x 2 pixels."""
    return ConvMixer(
        dim=96,
        depth=4,
        kernel_size=3,
        patch_size=2,
        input_shape=(SIZE, SIZE, 3),
        classes=10,
        classifier_activation=classifier_activation,
        mean=MEAN,
        std=STD,
        name="convmixer_digits",
    )


def train(train_set, test_set, directory):
    """Trains with AdamW and a cosine schedule after one pass of warm-up.

    Args:
        train_set: The training digits.
        test_set: The held-out digits.
        directory: Folder of the run.

    Returns:
        The trained model.
    """
    train_set = train_set.repeated(PASSES)
    config = TrainConfig(
        epochs=_EPOCHS.value,
        steps_per_epoch=steps_per_epoch(train_set, BATCH_SIZE),
        batch_size=BATCH_SIZE,
        learning_rate=4e-3,
        schedule="cosine",
        warmup_epochs=1 / PASSES,
        epsilon=1e-8,
        weight_decay=0.02,
        precision="float32",
        seed=_SEED.value,
        log_every=10,
        tensorboard=False,
    )
    model, _ = train_classifier(
        config,
        build_model,
        train_set,
        test_set,
        AUGMENTATION,
        SIZE,
        directory,
        "one",
        crop_fraction=1.0,
    )
    return model


def export(model, images, directory):
    """Saves the model as float32 and int8 TFLite files.

    Args:
        model: The trained model, which is already in `directory`.
        images: Training images for the calibration of the int8 file.
        directory: Folder to write to. Existing files are replaced.

    Returns:
        Dictionary from names to paths.
    """
    files = {
        "Keras": "model.keras",
        "TFLite float32": "digits_float32.tflite",
        "TFLite int8": "digits_int8.tflite",
    }
    paths = {
        name: os.path.join(directory, file) for name, file in files.items()
    }
    common = {"crop_fraction": 1.0, "overwrite": True}
    export_tflite(model, paths["TFLite float32"], **common)
    export_tflite(
        model,
        paths["TFLite int8"],
        quantization="int8",
        calibration_images=images,
        **common,
    )
    return paths


def compare(paths, images, labels):
    """Runs every file on the held-out digits.

    Args:
        paths: Dictionary from names to paths. The first is the Keras model,
            with which the others are compared.
        images: Held-out images.
        labels: Their labels.

    Returns:
        List with a dictionary for each file, and the last file's predictions.
    """
    rows, reference = [], None
    for name, path in paths.items():
        if path.endswith(".keras"):
            model = keras.saving.load_model(path)
            predictions = model.predict(images, verbose=0)
        else:
            predictions = LiteRTModel(path).predict(images)
        classes = predictions.argmax(-1)
        reference = classes if reference is None else reference
        rows.append(
            {
                "model": name,
                "top1": float(np.mean(classes == labels)),
                "agreement": float(np.mean(classes == reference)),
                "bytes": os.path.getsize(path),
                "file": os.path.basename(path),
            }
        )
    return rows, predictions


def draw_predictions(path, images, labels, predictions):
    """Draws test digits with their predictions, mistakes first, as a PNG."""
    classes = predictions.argmax(-1)
    order = np.argsort(classes == labels, kind="stable")[:50]
    figure = matplotlib.figure.Figure(figsize=(10, 6.2), layout="constrained")
    for axes, i in zip(figure.subplots(5, 10).flat, order, strict=True):
        axes.imshow(images[i, ..., 0], cmap="gray_r")
        right = classes[i] == labels[i]
        text = f"{classes[i]}" if right else f"{classes[i]}, label {labels[i]}"
        axes.set_title(
            f"{text}\n{predictions[i].max():.0%}",
            color="black" if right else "crimson",
            fontsize=9,
        )
        axes.axis("off")
    wrong = int((classes != labels).sum())
    figure.suptitle(
        f"Predictions of the int8 file on held-out digits: {wrong} of "
        f"{len(labels)} wrong, shown first"
    )
    with replaced(path) as unfinished:
        figure.savefig(unfinished, dpi=110)


def print_table(rows):
    """Prints the results of `compare`."""
    print(f"\n{'':16}{'top-1':>9}{'agreement':>11}{'size':>10}  file")
    for row in rows:
        print(
            f"{row['model']:16}{row['top1']:9.2%}{row['agreement']:11.2%}"
            f"{row['bytes'] / 1e3:7.0f} kB  {row['file']}"
        )


def pixels(dataset, count):
    """Reads the first images and labels of a data set as arrays."""
    batches = data.evaluation_batches(dataset, SIZE, count, crop_fraction=1.0)
    images, labels, _ = next(batches.as_numpy_iterator())
    return images, labels


def main(argv):
    """Trains, exports, runs the exported files and prints a summary."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    start = time.perf_counter()
    directory = _OUTPUT.value
    train_set = data.open_dataset("digits", "train")
    test_set = data.open_dataset("digits", "test")
    finished = os.path.exists(os.path.join(directory, "summary.json"))
    progress.note("building the model")
    model = train(train_set, test_set, directory)
    if finished:
        print(f"The run in {directory} is finished. Exporting it again.")
    progress.note("writing the TFLite files")
    paths = export(model, pixels(train_set, 200)[0], directory)
    images, labels = pixels(test_set, len(test_set))
    progress.note("running the files")
    rows, predictions = compare(paths, images, labels)

    picture = os.path.join(directory, "predictions.png")
    draw_predictions(picture, images, labels, predictions)
    curves.draw_run(directory)
    seconds = time.perf_counter() - start
    results = os.path.join(directory, "results.json")
    with replaced(results) as unfinished, open(unfinished, "w") as file:
        json.dump(
            {
                "models": rows,
                "images": len(labels),
                "epochs": _EPOCHS.value,
                "passes_per_epoch": PASSES,
                "seed": _SEED.value,
                "seconds": round(seconds),
                "cpu_seconds": round(time.process_time()),
                "cores": os.cpu_count(),
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
            },
            file,
            indent=2,
        )
    print_table(rows)
    print(f"\n{picture}\n{results}\n{seconds:.0f} seconds")


if __name__ == "__main__":
    launch.run(main)
