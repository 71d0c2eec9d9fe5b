"""Trains a small ConvMixer on real digits, and takes it to a phone's file.

    python recipes/train_digits.py

The data are scikit-learn's 1,797 handwritten digits, of 8 x 8 pixels, which
come with that package: nothing is downloaded. A fifth is held out; it chooses
nothing, so its accuracy is that of new digits of the same writers.

Time and result: see README.md, and BUILD.md for the machine they are of.
"""

import json
import os
import time

import keras
import matplotlib.figure
import numpy as np
import sklearn.datasets
import sklearn.model_selection
import tensorflow as tf
from absl import app
from absl import flags
from absl import logging

from convmixer_tf import ConvMixer
from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import export_tflite
from convmixer_tf.files import replaced

_OUTPUT = flags.DEFINE_string(
    "output", "runs/digits", "Folder for the model, the files and the results."
)
_EPOCHS = flags.DEFINE_integer(
    "epochs", 40, "Passes over the training digits.", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of everything that is random.")

BATCH_SIZE = 64  # images
LEARNING_RATE = 4e-3  # at its peak; a cosine takes it to 0
WEIGHT_DECAY = 0.02


def load_digits():
    """Loads the digits as images.

    Returns:
        Training images, test images, training labels, test labels. Images
        are of shape (number, 8, 8, 1), pixels in [0, 255].
    """
    digits = sklearn.datasets.load_digits()
    images = np.float32(digits.images[..., None]) * (255 / 16)
    return sklearn.model_selection.train_test_split(
        images,
        digits.target,
        test_size=0.2,
        random_state=0,
        stratify=digits.target,
    )


def build_model(images):
    """Builds a ConvMixer-96/4, for 4 x 4 patches of 2 x 2 pixels."""
    return ConvMixer(
        dim=96,
        depth=4,
        kernel_size=3,
        patch_size=2,
        input_shape=images.shape[1:],
        classes=10,
        mean=float(images.mean() / 255),
        std=float(images.std() / 255),
        name="convmixer_digits",
    )


def training_batches(images, labels):
    """Shuffles the digits, and shifts each by up to one pixel."""

    def shift(image, label):
        padded = tf.pad(image, [(1, 1), (1, 1), (0, 0)])
        return tf.image.random_crop(padded, image.shape), label

    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    dataset = dataset.shuffle(len(images)).map(shift)
    return dataset.batch(BATCH_SIZE, drop_remainder=True).prefetch(2)


def train(model, images, labels, epochs):
    """Trains with AdamW and a cosine schedule after one epoch of warm-up."""
    steps = len(images) // BATCH_SIZE
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=LEARNING_RATE,
        warmup_steps=steps,
        decay_steps=max(1, steps * (epochs - 1)),
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=WEIGHT_DECAY)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(
        optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    batches = training_batches(images, labels)
    model.fit(batches, epochs=epochs, shuffle=False, verbose=2)


def export(model, images, directory):
    """Saves the model for Keras, and as float32 and int8 TFLite files.

    Args:
        model: The trained model.
        images: Training images, the ranges of which the int8 file is made for.
        directory: Folder to write to; files there are replaced.

    Returns:
        Dictionary from names to paths.
    """
    files = {
        "Keras": "digits.keras",
        "TFLite float32": "digits_float32.tflite",
        "TFLite int8": "digits_int8.tflite",
    }
    paths = {
        name: os.path.join(directory, file) for name, file in files.items()
    }
    with replaced(paths["Keras"]) as unfinished:
        model.save(unfinished)
    export_tflite(model, paths["TFLite float32"], overwrite=True)
    export_tflite(
        model,
        paths["TFLite int8"],
        quantization="int8",
        calibration_images=images[:200],
        overwrite=True,
    )
    return paths


def compare(paths, images, labels):
    """Runs every file on the held-out digits.

    Args:
        paths: Dictionary from names to paths; the first is the Keras model's,
            with which the others are compared.
        images: Held-out images.
        labels: Their labels.

    Returns:
        List of one dictionary for each file, and the last file's predictions.
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
        text = f"{classes[i]}" if right else f"{classes[i]}, is {labels[i]}"
        axes.set_title(
            f"{text}\n{predictions[i].max():.0%}",
            color="black" if right else "crimson",
            fontsize=9,
        )
        axes.axis("off")
    wrong = int((classes != labels).sum())
    figure.suptitle(
        f"Held-out digits as the int8 file reads them: {wrong} of "
        f"{len(labels)} wrong, shown first"
    )
    with replaced(path) as unfinished:
        figure.savefig(unfinished, dpi=110)


def print_table(rows):
    """Prints what `compare` found."""
    print(f"\n{'':16}{'top-1':>9}{'agreement':>11}{'size':>10}  file")
    for row in rows:
        print(
            f"{row['model']:16}{row['top1']:9.2%}{row['agreement']:11.2%}"
            f"{row['bytes'] / 1e3:7.0f} kB  {row['file']}"
        )


def main(argv):
    """Trains, exports, runs the exported files, and sums it all up."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    start = time.perf_counter()
    os.makedirs(_OUTPUT.value, exist_ok=True)
    keras.utils.set_random_seed(_SEED.value)
    images, test_images, labels, test_labels = load_digits()
    model = build_model(images)
    train(model, images, labels, _EPOCHS.value)
    paths = export(model, images, _OUTPUT.value)
    rows, predictions = compare(paths, test_images, test_labels)

    picture = os.path.join(_OUTPUT.value, "predictions.png")
    draw_predictions(picture, test_images, test_labels, predictions)
    seconds = time.perf_counter() - start
    results = os.path.join(_OUTPUT.value, "results.json")
    with replaced(results) as unfinished, open(unfinished, "w") as file:
        json.dump(
            {
                "models": rows,
                "images": len(test_labels),
                "epochs": _EPOCHS.value,
                "seed": _SEED.value,
                "seconds": round(seconds),
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
    app.run(main)
