"""Writes a TFLite file and its metadata to the Android app.

    convmixer export android --model model.tflite --image photo.jpg

`--model` is a file from `convmixer export tflite` with class names. `--image`
is an image that the model classifies confidently, for the app's self-test: the
phone must get the same result as LiteRT here. See `export/android/README.md`
for how to build the app.

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
    "image", None, "A JPEG or PNG file of one of the classes.", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write.", required=True)
_CROP = flags.DEFINE_float(
    "crop_fraction",
    None,
    "Fraction of an image's side to keep, as in the model's evaluation. "
    "Default: the file's value, or 0.96.",
)
_ORIENTATION = flags.DEFINE_enum(
    "orientation",
    None,
    ORIENTATIONS,
    "Rotate photos as their EXIF says, or read pixels as stored. Default: the "
    "file's value, or exif.",
)
_TOP = flags.DEFINE_integer("top", 5, "Number of classes to compare.", 1)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Whether to replace an existing output."
)


def main(argv):
    """Writes the app's assets and prints the expected results."""
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
