"""What `python -m convmixer_tf.predict` does before TensorFlow is imported.

Python imports a package before the module in it that `-m` names, and
TensorFlow writes to the standard error while it is imported. So the package
imports this module first of all. In every other process it does nothing.
"""

import argparse
import atexit
import contextlib
import os
import re
import sys
import threading

from convmixer_tf.validation import ORIENTATIONS

COMMAND = "convmixer_tf.predict"
# As `models.VARIANTS` and `inference.FORMATS` have them.
VARIANTS = ("1536_20", "768_32", "1024_20", "512_16", "256_8")
FORMATS = ("table", "json", "csv")
# TensorFlow's log, but for what is fatal, and what the libraries that decode
# images say of damaged files, whose names they don't know.
_NOISE = re.compile(
    rb"[IWE]\d{4} \d\d:\d\d:|WARNING: All log messages before absl"
    rb"|To enable the following instructions:|.*\bJPEG\b|.*\bjpeg\b|libpng"
    rb"|Input file read error|.*Huffman|.*\bmarker 0x"
)


def parse(arguments=None):
    """Reads the command line.

    Args:
        arguments: List of strings. Defaults to the process' own.

    Returns:
        An `argparse.Namespace`.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {COMMAND}",
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


def prepare():
    """Answers `--help`, and keeps libraries quiet, if this is the command."""
    # While Python looks for the module, `-m` stands in the place of its path.
    if sys.argv[:1] != ["-m"] or COMMAND not in sys.orig_argv:
        return
    parse(sys.argv[1:])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3":
        filter_standard_error()


def filter_standard_error():
    """Drops the noise that libraries in C write to the standard error.

    What Python writes there goes its own way.
    """
    try:
        original = os.dup(2)
    except OSError:  # There is none.
        return
    sys.stderr = os.fdopen(
        os.dup(2), "w", buffering=1, errors="backslashreplace"
    )
    read, write = os.pipe()
    os.dup2(write, 2)
    os.close(write)
    with contextlib.suppress(AttributeError, OSError):  # Not on all systems.
        os.set_blocking(2, False)  # Nobody must wait for who reads.
    thread = threading.Thread(target=_pass_on, args=(read, original))
    thread.daemon = True
    thread.start()

    def restore():
        os.dup2(original, 2)  # The pipe's last end to write to is closed.
        thread.join(timeout=1)

    atexit.register(restore)


def _pass_on(read, write):
    with os.fdopen(read, "rb") as lines:
        for line in lines:
            if not _NOISE.match(line):
                os.write(write, line)


prepare()
