"""The part of the commands that runs before TensorFlow is imported.

The commands are `convmixer`, `python -m convmixer_tf` and `python -m
convmixer_tf.predict`. Python imports a package before its modules, and
TensorFlow writes to stderr while it is imported. Therefore the package imports
this module first. In every other process, it only keeps TensorFlow from
searching for a TPU that is not there.
"""

import argparse
import atexit
import contextlib
import difflib
import glob
import importlib.util
import os
import re
import sys
import threading

from convmixer_tf.validation import ORIENTATIONS

COMMAND = "convmixer_tf.predict"
# The commands of `convmixer` with a line of help.
COMMANDS = {
    "phone": "train on photographs and write verified files for phones",
    "predict": "classify image files",
    "map": "classify any number of images, on one machine or a cluster",
    "finetune": "fine-tune a model on your images",
    "evaluate": "evaluate a model on labeled images",
    "export": "export to tflite, onnx, saved_model, tfhub, web or android",
    "verify": "compare an exported file with its model",
    "push": "upload a model to the Hugging Face hub",
    "serve": "serve a classifier over HTTP",
}
# The same as `models.variants` and `inference.FORMATS`.
VARIANTS = ("1536_20", "768_32", "1024_20", "512_16", "256_8")
FORMATS = ("table", "json", "csv")
# TensorFlow's log, except fatal errors, and messages of image libraries about
# damaged files, without file names.
_NOISE = re.compile(
    rb"[IWE]\d{4} \d\d:\d\d:|WARNING: All log messages before absl"
    rb"|INFO: Created TensorFlow Lite|To enable the following instructions:"
    rb"|.*\bJPEG\b|.*\bjpeg\b|libpng"
    rb"|.*core_worker\.cc:\d+. Actor with class name"
    rb"|Input file read error|.*Huffman|.*\bmarker 0x"
)


def parse(arguments=None, program=f"python -m {COMMAND}"):
    """Parses the command line of `predict`.

    Args:
        arguments: List of strings. Defaults to the process' own.
        program: String, the name of the command.

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
    add("--list", help="file with one image path a line; - for stdin")
    add(
        "--model",
        default="256_8",
        help="a .keras, .tflite or weights file, a SavedModel, TF Hub module "
        f"or run folder, hf://USER/REPOSITORY, or one of {', '.join(VARIANTS)}",
    )
    add("--labels", help="file with one class name a line")
    add("--top", type=_positive, default=5, help="number of top classes")
    add("--format", choices=FORMATS, default="table", help="output format")
    add("--output", help="file to write to, instead of stdout")
    add("--overwrite", action="store_true", help="replace an existing file")
    add("--batch_size", type=_positive, default=64, help="images per batch")
    add(
        "--image_size",
        type=_positive,
        help="image size of the model, in pixels",
    )
    add(
        "--crop_fraction",
        type=float,
        help="fraction of an image's side to keep, instead of the model's",
    )
    add(
        "--orientation",
        choices=ORIENTATIONS,
        help="rotate images as their EXIF says, or read pixels as stored, "
        "instead of the model's setting",
    )
    return parser.parse_args(arguments)


def parse_phone(arguments=None):
    """Parses the command line of `convmixer phone`.

    Args:
        arguments: List of strings. Defaults to the process' own, without the
            first.

    Returns:
        An `argparse.Namespace`.
    """
    parser = argparse.ArgumentParser(
        prog="convmixer phone",
        description="Trains a classifier on photographs and exports it for "
        "phones: model.keras, verified float16 and int8 .tflite files with "
        "class names, and report.html with pictures. To resume a stopped "
        "run, run the same command.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "photos",
        help="a folder with a folder of photographs for each class, or with "
        "these in train, validation and test; or a CSV table with the "
        "columns path and label",
    )
    add("--output", required=True, help="folder to write")
    add(
        "--model",
        default="256_8",
        help="pretrained model: a ConvMixer's .keras file, a run folder, or "
        f"one of {', '.join(VARIANTS)}. 256_8 ships with the package and "
        "takes images of 32 pixels; the others, for 224 pixels, are "
        "downloaded",
    )
    add(
        "--image_size",
        type=_positive,
        help="image size of the model, in pixels",
    )
    add("--frozen", action="store_true", help="train only the classifier")
    add("--android", action="store_true", help="also write the app's assets")
    add("--web", action="store_true", help="also write the web page's model")
    add("--overwrite", action="store_true", help="replace an existing result")
    return parser.parse_args(sys.argv[2:] if arguments is None else arguments)


def _positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"must be a whole number, 1 or more. Received: {text}"
        )
    return int(text)


def prepare():
    """Handles `--help` and silences libraries if this is a command."""
    # While Python searches for the module, `-m` is in place of its path.
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


def skip_absent_tpu():
    """Keeps TensorFlow for TPUs from waiting minutes for an absent TPU.

    While TensorFlow is imported, libtpu asks Google's metadata server which TPU
    the machine has.
    """
    if importlib.util.find_spec("libtpu") and not (
        glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    ):
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")


def _is_console_script():
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    # On Windows, it is an .exe or a script beside it.
    return name in ("convmixer", "convmixer.exe", "convmixer-script.py")


def choose(arguments):
    """Finds the command in a command line of `convmixer`.

    Args:
        arguments: List of strings.

    Returns:
        String, the command. If it is missing or unknown, the program ends with
        a help text.
    """
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help", "help"):
        try:
            print(_usage(), flush=True)
        except BrokenPipeError:  # The reader closed the pipe.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    if command not in COMMANDS:
        known = difflib.get_close_matches(command, COMMANDS, 1)
        advice = f" Did you mean {known[0]}?" if known else ""
        print(f"Unknown command {command!r}.{advice}", file=sys.stderr)
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
            "Run convmixer COMMAND --help for details.",
        ]
    )


def filter_standard_error():
    """Drops messages that C libraries write to stderr.

    Python's own messages are not affected.
    """
    try:
        original = os.dup(2)
    except OSError:  # There is no stderr.
        return
    sys.stderr = os.fdopen(
        os.dup(2), "w", buffering=1, errors="backslashreplace"
    )
    read, write = os.pipe()
    os.dup2(write, 2)
    os.close(write)
    with contextlib.suppress(AttributeError, OSError):  # Not on all systems.
        os.set_blocking(2, False)  # Must not wait for a slow reader.
    thread = threading.Thread(target=_pass_on, args=(read, original))
    thread.daemon = True
    thread.start()

    def restore():
        os.dup2(original, 2)  # Closes the pipe's last write end.
        thread.join(timeout=1)

    atexit.register(restore)


def _pass_on(read, write):
    with os.fdopen(read, "rb") as lines:
        for line in lines:
            if not _NOISE.match(line):
                os.write(write, line)


skip_absent_tpu()
prepare()
