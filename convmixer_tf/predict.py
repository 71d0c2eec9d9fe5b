"""Classifies image files.

    python -m convmixer_tf.predict IMAGE...

IMAGE is a file, a folder, which is searched with all its folders, or a
`file://` URL. The model is the one that comes with the package, which knows
CIFAR-10's ten classes, unless `--model` names another. What can't be read is
named, and makes the exit status 1; if nothing can be done it is 2.
"""

import argparse
import collections
import contextlib
import dataclasses
import logging
import os
import pathlib
import sys
import time

from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced
from convmixer_tf.inference import FORMATS
from convmixer_tf.inference import classify
from convmixer_tf.inference import find_images
from convmixer_tf.inference import load_classifier
from convmixer_tf.models import VARIANTS
from convmixer_tf.validation import ORIENTATIONS

_SECONDS_BETWEEN_LINES = 10


def parse(arguments=None):
    """Reads the command line.

    Args:
        arguments: List of strings. Defaults to the process' own.

    Returns:
        An `argparse.Namespace`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m convmixer_tf.predict",
        description="Classifies image files.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("images", nargs="*", help="files, folders or file:// URLs")
    add("--list", help="file with an image a line; - for the standard input")
    add(
        "--model",
        default="256_8",
        help="a .keras or .tflite file, the folder of a SavedModel, of a TF "
        f"Hub module or of a run, or one of {', '.join(VARIANTS)}",
    )
    add("--labels", help="file with the name of a class a line")
    add("--top", type=_positive, default=5, help="classes to name an image")
    add("--format", choices=FORMATS, default="table", help="what to write")
    add("--output", help="file to write to, in place of the standard output")
    add("--overwrite", action="store_true", help="replace that file")
    add("--batch_size", type=_positive, default=64, help="images at a time")
    add("--image_size", type=_positive, help="side, in pixels, of the model's")
    add(
        "--crop_fraction",
        type=float,
        help="part of an image's side to keep, in place of the model's",
    )
    add(
        "--orientation",
        choices=ORIENTATIONS,
        help="turn images as their EXIF says, or take pixels as stored, in "
        "place of the model's",
    )
    return parser.parse_args(arguments)


def _positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"must be a whole number, 1 or more. Received: {text}"
        )
    return int(text)


def images_of(options):
    """Finds the images that the command line names.

    What it skips in folders it tells on the standard error.

    Args:
        options: What `parse` returns.

    Returns:
        List of paths, of which some may not exist.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If there is nothing on the command line.
    """
    names = list(options.images)
    if options.list == "-":
        names += sys.stdin.read().splitlines()
    elif options.list:
        text = pathlib.Path(options.list).read_text(encoding="utf-8")
        names += text.splitlines()
    elif not names:
        raise ValueError("No image. Name files or folders, or pass --list.")
    skipped = []
    try:
        return find_images(filter(None, names), skipped)
    finally:
        if skipped:
            _say_skipped(skipped)


def _say_skipped(paths):
    suffixes = (pathlib.Path(path).suffix.lower() for path in paths)
    counts = collections.Counter(suffixes).most_common()
    parts = [f"{n:,} {suffix or 'without suffix'}" for suffix, n in counts]
    plural = "s" if len(paths) > 1 else ""
    _say(f"{len(paths):,} file{plural} skipped: {', '.join(parts)}")


def classifier_of(options):
    """Loads the classifier that the command line names.

    Args:
        options: What `parse` returns.

    Returns:
        A `Classifier`.

    Raises:
        ValueError: If options do not go with the model, and as
            `load_classifier`.
    """
    labels = None
    if options.labels:
        text = pathlib.Path(options.labels).read_text(encoding="utf-8")
        labels = tuple(text.splitlines())
    found = load_classifier(
        options.model,
        options.image_size,
        options.crop_fraction,
        options.orientation,
    )
    if labels and len(labels) != found.classes:
        raise ValueError(
            f"The model has {found.classes} classes, and --labels has names "
            f"for {len(labels)}."
        )
    return dataclasses.replace(found, class_names=labels or found.class_names)


def reported(batches, count, unreadable):
    """Passes predictions on, and tells on the standard error how it goes.

    Args:
        batches: What `classify` returns.
        count: Integer, how many images there are.
        unreadable: List, to which the paths of unreadable images are added.

    Yields:
        A `Prediction` for each image.
    """
    done, first, since, said = 0, 0, 0.0, time.monotonic()
    line = ""
    for predictions in batches:
        now = time.monotonic()
        done += len(predictions)
        if first:  # That of the first batch was building the graph.
            speed = (done - first) / max(now - since, 1e-9)
            line = f"{done:,} of {count:,} images, {speed:,.0f} images/s"
        else:
            first, since = done, now
        for prediction in predictions:
            if prediction.probabilities is None:
                unreadable.append(prediction.image)
                there = os.path.exists(prediction.image)
                why = "" if there else " There is no such file."
                _say(f"Can't read `{prediction.image}`.{why}")
        if line and sys.stderr.isatty():
            print(f"\r{line}", end="", file=sys.stderr, flush=True)
        elif line and now - said > _SECONDS_BETWEEN_LINES:
            said = now
            _say(line)
        yield from predictions
    if line:
        _say(line)
    if unreadable:
        _say(f"{len(unreadable):,} of {count:,} images can't be read.")


def _say(line):
    start = "\r" if sys.stderr.isatty() else ""
    print(f"{start}{line}", file=sys.stderr)


def main(arguments=None):
    """Classifies what the command line says.

    Args:
        arguments: List of strings. Defaults to the process' own.

    Returns:
        Integer, the exit status: 0; 1 if an image can't be read; 2 if nothing
        can be done.
    """
    options = parse(arguments)
    # It is said here, by name.
    logging.getLogger("convmixer_tf.data").setLevel(logging.ERROR)
    unreadable = []
    try:
        if options.output:
            check_destination(options.output, ("",), options.overwrite)
        paths = images_of(options)
        classifier = classifier_of(options)
        size = min(options.batch_size, len(paths))
        batches = classify(classifier, paths, size)
        predictions = reported(batches, len(paths), unreadable)
        with _opened(options.output) as file:
            FORMATS[options.format](
                file, predictions, options.top, classifier.class_names
            )
    except BrokenPipeError:  # Whoever reads has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ImportError, OSError, ValueError) as error:
        _say(f"Error: {error}")
        return 2
    return 1 if unreadable else 0


@contextlib.contextmanager
def _opened(path):
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    with (
        replaced(path) as unfinished,
        open(unfinished, "w", encoding="utf-8", newline="") as file,
    ):
        yield file


if __name__ == "__main__":
    sys.exit(main())
