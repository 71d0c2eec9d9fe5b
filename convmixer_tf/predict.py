"""Classifies image files.

    python -m convmixer_tf.predict IMAGE...

IMAGE is a file, a folder, which is searched recursively, or a `file://` URL.
The default model ships with the package and knows CIFAR-10's ten classes;
`--model` selects another. Images without a prediction are reported with the
reason, and the exit status is then 1. It is 2 if no image can be classified.
"""

import collections
import contextlib
import logging
import os
import pathlib
import sys
import time

from convmixer_tf import progress
from convmixer_tf.command_line import COMMAND
from convmixer_tf.command_line import parse
from convmixer_tf.data.unreadable import why_left_out
from convmixer_tf.files import check_destination
from convmixer_tf.files import parse_lines
from convmixer_tf.files import printable_name
from convmixer_tf.files import read_lines
from convmixer_tf.files import replaced
from convmixer_tf.inference.classification import classify
from convmixer_tf.inference.classifiers import load_classifier
from convmixer_tf.inference.formats import FORMATS
from convmixer_tf.inference.image_files import find_images

_SECONDS_BETWEEN_LINES = 10


def images_of(options):
    """Finds the images on the command line.

    Skipped files in folders are reported on stderr.

    Args:
        options: Options from `parse`.

    Returns:
        List of paths, some of which may not exist.

    Raises:
        FileNotFoundError: If there are no images.
        ValueError: If the command line names no images.
    """
    names = list(options.images)
    if options.list == "-":
        content = sys.stdin.buffer.read()
        names += parse_lines(content, "standard input", paths=True)
    elif options.list:
        content = pathlib.Path(options.list).read_bytes()
        names += parse_lines(content, options.list, paths=True)
    elif not names:
        raise ValueError("No image. Name files or folders, or pass --list.")
    skipped = []
    try:
        return find_images(names, skipped)
    finally:
        if skipped:
            _say_skipped(skipped)


def _say_skipped(paths):
    suffixes = (pathlib.Path(path).suffix.lower() for path in paths)
    counts = collections.Counter(suffixes).most_common()
    parts = [
        f"{n:,} {printable_name(suffix) or 'without suffix'}"
        for suffix, n in counts
    ]
    plural = "s" if len(paths) > 1 else ""
    counts = f"{len(paths):,} file{plural} skipped: {', '.join(parts)}"
    _say(f"{counts}.{why_left_out(paths)}")


def classifier_of(options):
    """Loads the classifier of the command line.

    Args:
        options: Options from `parse`.

    Returns:
        A `Classifier`.

    Raises:
        ValueError: If options do not fit the model, or as for
            `load_classifier`.
    """
    labels = read_lines(options.labels) if options.labels else None
    found = load_classifier(
        options.model,
        options.image_size,
        options.crop_fraction,
        options.orientation,
    )
    if labels is None:
        return found
    try:
        return found.renamed(labels)
    except ValueError as error:
        raise ValueError(f"{error} (`--labels {options.labels}`)") from error


def reported(batches, count, failed):
    """Yields predictions and reports progress on stderr.

    Args:
        batches: Batches from `classify`.
        count: Integer, the number of images.
        failed: List, to which the paths of images without prediction are added.

    Yields:
        A `Prediction` for each image.
    """
    done, first, since, said = 0, 0, 0.0, time.monotonic()
    line = ""
    for predictions in batches:
        now = time.monotonic()
        done += len(predictions)
        progress.note("%d of %d images", done, count)
        if first:  # The first batch includes building the graph.
            speed = (done - first) / max(now - since, 1e-9)
            line = f"{done:,} of {count:,} images, {speed:,.0f} images/s"
        else:
            first, since = done, now
        for prediction in predictions:
            if prediction.probabilities is None:
                failed.append(prediction.image)
                name = printable_name(prediction.image)
                _say(f"`{name}` is {printable_name(prediction.error)}")
        if line and sys.stderr.isatty():
            print(f"\r{line}", end="", file=sys.stderr, flush=True)
            progress.touch()
        elif line and now - said > _SECONDS_BETWEEN_LINES:
            said = now
            _say(line)
        yield from predictions
    if line:
        _say(line)
    if failed:
        _say(f"{len(failed):,} of {count:,} images have no prediction.")


def _say(line):
    start = "\r" if sys.stderr.isatty() else ""
    print(f"{start}{line}", file=sys.stderr, flush=True)
    progress.touch()


def main(arguments=None, program=f"python -m {COMMAND}"):
    """Runs the command `predict`.

    Args:
        arguments: List of strings. Defaults to the process' own.
        program: String, the command's name.

    Returns:
        Integer, the exit status: 0 on success, 1 if an image has no prediction,
        2 if no image can be classified.
    """
    options = parse(arguments, program)
    # This command reports unreadable images itself.
    logging.getLogger("convmixer_tf.data").setLevel(logging.ERROR)
    failed = []
    try:
        if options.output:
            check_destination(options.output, ("",), options.overwrite)
        paths = images_of(options)
        with progress.told(_say):
            progress.note("loading %s", options.model)
            classifier = classifier_of(options)
            progress.note("0 of %d images", len(paths))
            size = min(options.batch_size, len(paths))
            batches = classify(classifier, paths, size)
            predictions = reported(batches, len(paths), failed)
            with _opened(options.output) as file:
                FORMATS[options.format](
                    file, predictions, options.top, classifier.class_names
                )
    except BrokenPipeError:  # The reader closed the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ImportError, OSError, ValueError) as error:
        _say(f"Error: {printable_name(' '.join(str(error).split()))}")
        return 2
    return 1 if failed else 0


@contextlib.contextmanager
def _opened(path):
    if path is None:
        with contextlib.suppress(AttributeError):  # In a notebook.
            # Escape letters that the terminal lacks.
            sys.stdout.reconfigure(errors="backslashreplace")
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
