"""Maps the commands of `convmixer` to modules."""

import importlib
import sys

from convmixer_tf import command_line

FORMATS = {
    "tflite": "to_tflite",
    "onnx": "to_onnx",
    "saved_model": "to_saved_model",
    "tfhub": "to_tfhub",
    "web": "to_web",
    "android": "to_android",
}
# Commands that need `guarded` for one-line errors.
_GUARDED = ("evaluate", "finetune", "map")


def main(arguments=None):
    """Runs the command on the command line.

    Args:
        arguments: List of strings. Defaults to the process' own.

    Returns:
        Integer, the exit status.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    name = command_line.choose(arguments)
    rest = arguments[1:]
    if name == "predict":
        return _module("convmixer_tf.predict").main(rest, "convmixer predict")
    if name == "phone":
        return _module("convmixer_tf.cli.phone").main(rest)
    program = f"convmixer {name}"
    if name == "export":
        if not rest or rest[0] not in FORMATS:
            formats = ", ".join(FORMATS)
            print(f"usage: convmixer export FORMAT ...\nFORMAT: {formats}")
            return 0 if rest and rest[0] in ("-h", "--help") else 2
        name, program = FORMATS[rest[0]], f"{program} {rest[0]}"
        rest = rest[1:]
    module = _module(f"convmixer_tf.cli.{name}")
    launch = _module("convmixer_tf.cli.launch")
    launch.run_command(module, program, rest, guard=name in _GUARDED)
    return 0


def _module(name):
    """Imports a module lazily, because commands define the same flags."""
    return importlib.import_module(name)
