"""Fills the Android app in `export/android` with a TFLite file.

    convmixer export android --model model.tflite --image photo.jpg

`--model` is a file of `to_tflite.py`, with labels; `--image` one of which it
is sure, for the app's self-test. What LiteRT finds in it here is what the
phone has to find. `export/android/README.md` says how to build the app.

Time: seconds.
"""

import sys

from absl import app
from absl import flags

from convmixer_tf.export import export_android
from convmixer_tf.files import made_parents
from convmixer_tf.validation import ORIENTATIONS

_MODEL = flags.DEFINE_string("model", None, "A .tflite file.", required=True)
_IMAGE = flags.DEFINE_string(
    "image", None, "A JPEG or PNG file that the model knows.", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write.", required=True)
_CROP = flags.DEFINE_float(
    "crop_fraction",
    None,
    "Part of an image's side to keep, as the model was evaluated. Default: "
    "what the file says, or 0.96.",
)
_ORIENTATION = flags.DEFINE_enum(
    "orientation",
    None,
    ORIENTATIONS,
    "Turn photos as their EXIF says, or take pixels as stored. Default: what "
    "the file says, or exif.",
)
_TOP = flags.DEFINE_integer("top", 5, "How many classes to compare.", 1)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Whether to replace what is there."
)


def main(argv):
    """Writes the app's assets, and prints what the phone has to find."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    try:
        with made_parents(_OUTPUT.value):
            golden = export_android(
                _MODEL.value,
                _OUTPUT.value,
                _IMAGE.value,
                crop_fraction=_CROP.value,
                orientation=_ORIENTATION.value,
                top=_TOP.value,
                overwrite=_OVERWRITE.value,
            )
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    tolerances = golden["tolerances"]
    print("| class | score | on the CPU | on the GPU |\n|---|---|---|---|")
    for entry in golden["top"]:
        off = " | ".join(f"± {tolerances[kind]}" for kind in ("cpu", "gpu"))
        print(f"| {entry['class']} | {entry['score']:.4f} | {off} |")
    print(f"Written: {_OUTPUT.value}")
