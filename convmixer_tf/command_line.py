"""What the commands do before TensorFlow is imported.

They are `convmixer`, `python -m convmixer_tf` and `python -m
convmixer_tf.predict`. Python imports a package before a module in it, and
TensorFlow writes to the standard error while it is imported. So the package
imports this module first of all. In every other process it does nothing.
"""

import argparse
import atexit
import contextlib
import difflib
import os
import re
import sys
import threading

from convmixer_tf.validation import ORIENTATIONS

COMMAND = "convmixer_tf.predict"
# What `convmixer` does: the module of each command, and a line of help.
COMMANDS = {
    "phone": "from photographs to verified files for phones, and a report",
    "predict": "classify image files",
    "map": "classify any number of images, on a machine or a cluster",
    "finetune": "teach a model the classes of your images",
    "evaluate": "measure a model on labeled images",
    "export": "write a model as tflite, onnx, saved_model, tfhub, web, android",
    "verify": "compare an exported file with its model",
    "push": "upload a model to the Hugging Face hub",
    "serve": "answer over HTTP: an image in, its classes out",
}
# As `models.variants` and `inference.FORMATS` have them.
VARIANTS = ("1536_20", "768_32", "1024_20", "512_16", "256_8")
FORMATS = ("table", "json", "csv")
# TensorFlow's log, but for what is fatal, and what the libraries that decode
# images say of damaged files, whose names they don't know.
_NOISE = re.compile(
    rb"[IWE]\d{4} \d\d:\d\d:|WARNING: All log messages before absl"
    rb"|INFO: Created TensorFlow Lite|To enable the following instructions:"
    rb"|.*\bJPEG\b|.*\bjpeg\b|libpng"
    rb"|.*core_worker\.cc:\d+. Actor with class name"
    rb"|Input file read error|.*Huffman|.*\bmarker 0x"
)


def parse(arguments=None, program=f"python -m {COMMAND}"):
    """Reads the command line of `predict`.

    Args:
        arguments: List of strings. Defaults to the process' own.
        program: String, what the command is called.

    Returns:
        An `argparse.Namespace`.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        description="Classifies image files.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("images", nargs="*", help="files, folders or file:// URLs")
    add("--list", help="file with an image a line; - for the standard input")
    add(
        "--model",
        default="256_8",
        help="a .keras or .tflite file, a file of weights, the folder of a "
        "SavedModel, of a TF Hub module or of a run, hf://USER/REPOSITORY, or "
        f"one of {', '.join(VARIANTS)}",
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


def parse_phone(arguments=None):
    """Reads the command line of `convmixer phone`.

    Args:
        arguments: List of strings. Defaults to the process' own, without the
            first.

    Returns:
        An `argparse.Namespace`.
    """
    parser = argparse.ArgumentParser(
        prog="convmixer phone",
        description="Makes of photographs a classifier for phones: "
        "model.keras, verified float16 and int8 .tflite files with labels, "
        "and report.html with pictures. A run that was stopped is resumed by "
        "the same command.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "photos",
        help="a folder with a folder of photographs for each class, or these "
        "in train, validation and test; or a CSV with the columns path, label",
    )
    add("--output", required=True, help="folder to write")
    add(
        "--model",
        default="256_8",
        help="where to start: a ConvMixer's .keras file, the folder of a run, "
        f"or one of {', '.join(VARIANTS)}. 256_8 is part of the package, for "
        "images of 32 pixels; the others, for 224, are fetched",
    )
    add("--image_size", type=_positive, help="side, in pixels, of the model's")
    add("--frozen", action="store_true", help="fit the classifier only")
    add("--android", action="store_true", help="write the app's assets, too")
    add("--web", action="store_true", help="write the page's model, too")
    add("--overwrite", action="store_true", help="replace another result")
    return parser.parse_args(sys.argv[2:] if arguments is None else arguments)


def _positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"must be a whole number, 1 or more. Received: {text}"
        )
    return int(text)


def prepare():
    """Answers `--help`, and keeps libraries quiet, if this is a command."""
    # While Python looks for the module, `-m` stands in the place of its path.
    if sys.argv[:1] == ["-m"] and COMMAND in sys.orig_argv:
        parse(sys.argv[1:])
    elif (
        sys.argv[:1] == ["-m"] and "convmixer_tf" in sys.orig_argv
    ) or _is_console_script():
        choose(sys.argv[1:])
    else:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3":
        filter_standard_error()


def _is_console_script():
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    # On Windows it is an .exe, or a script beside it.
    return name in ("convmixer", "convmixer.exe", "convmixer-script.py")


def choose(arguments):
    """Finds the command that a command line of `convmixer` names.

    Args:
        arguments: List of strings.

    Returns:
        String, the command. Where there is none, or an unknown one, the
        program ends with help.
    """
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help", "help"):
        try:
            print(_usage(), flush=True)
        except BrokenPipeError:  # Whoever reads has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    if command not in COMMANDS:
        known = difflib.get_close_matches(command, COMMANDS, 1)
        advice = f" Did you mean {known[0]}?" if known else ""
        print(f"There is no command {command!r}.{advice}", file=sys.stderr)
        print(_usage(), file=sys.stderr)
        sys.exit(2)
    if command == "predict":
        parse(arguments[1:], "convmixer predict")
    if command == "phone":
        parse_phone(arguments[1:])
    return command


def _usage():
    lines = [f"  {name:10}{text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: convmixer COMMAND ...",
            "",
            *lines,
            "",
            "convmixer COMMAND --help says more.",
        ]
    )


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
