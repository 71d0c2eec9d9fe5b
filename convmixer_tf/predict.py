"""Classifies image files.

    python -m convmixer_tf.predict IMAGE...

IMAGE is a file, a folder, which is searched with all its folders, or a
`file://` URL. The model is the one that comes with the package, which knows
CIFAR-10's ten classes, unless `--model` names another. An image that has no
prediction is named, with the reason, and makes the exit status 1; if nothing
can be done it is 2.
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
from convmixer_tf.inference import classify
from convmixer_tf.inference import load_classifier
from convmixer_tf.inference.formats import FORMATS
from convmixer_tf.inference.image_files import find_images

_SECONDS_BETWEEN_LINES = 10


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
    """Loads the classifier that the command line names.

    Args:
        options: What `parse` returns.

    Returns:
        A `Classifier`.

    Raises:
        ValueError: If options do not go with the model, and as
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
    """Passes predictions on, and tells on the standard error how it goes.

    Args:
        batches: What `classify` returns.
        count: Integer, how many images there are.
        failed: List, to which the paths of images are added that got no
            prediction.

    Yields:
        A `Prediction` for each image.
    """
    done, first, since, said = 0, 0, 0.0, time.monotonic()
    line = ""
    for predictions in batches:
        now = time.monotonic()
        done += len(predictions)
        progress.note("%d of %d images", done, count)
        if first:  # That of the first batch was building the graph.
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
    """Classifies what the command line says.

    Args:
        arguments: List of strings. Defaults to the process' own.
        program: String, what the command is called.

    Returns:
        Integer, the exit status: 0; 1 if an image has no prediction; 2 if
        nothing can be done.
    """
    options = parse(arguments, program)
    # It is said here, by name.
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
    except BrokenPipeError:  # Whoever reads has seen enough.
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
            # Names go on where the terminal lacks their letters.
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
