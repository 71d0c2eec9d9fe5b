"""Compares an exported file with its model, in the runtime that it is for.

    convmixer verify MODEL ARTIFACT --images FOLDER --output report.json

MODEL is a `.keras` file, the folder of a run, a file of weights or a variant
(1536_20, 768_32, 1024_20, 512_16, 256_8), ARTIFACT a SavedModel's folder or a
`.tflite`, `.onnx` or `.keras` file. If MODEL is no classifier, features are
compared. Prints a table, and ends with status 1 if a limit is broken, which it
names. Without flags the limits are those of the number format, see
`convmixer_tf.export.Limits`.

Time: a forward pass of each over the images.
"""

import os
import sys

from absl import app
from absl import flags

from convmixer_tf.cli import export_flags
from convmixer_tf.export.publish import describe
from convmixer_tf.export.verification.runtimes import RUNTIMES
from convmixer_tf.files import check_destination
from convmixer_tf.models.additions import read_crop_fraction
from convmixer_tf.models.additions import read_orientation
from convmixer_tf.models.rebuilding import find_model

flags.adopt_module_key_flags(export_flags)
_RUNTIME = flags.DEFINE_enum(
    "runtime", None, RUNTIMES, "What runs it. Default: by its kind."
)
_SIGNATURE = flags.DEFINE_string(
    "signature", None, "Of a SavedModel. Default: serving_default."
)
_MAX_PIXEL = flags.DEFINE_enum(
    "max_pixel", "255", ["255", "1"], "What the file takes for white."
)


def check_order(name):
    """Refuses what was exported in place of the model."""
    folder = os.path.isdir(name) and find_model(name) == name
    if folder or name.endswith((".tflite", ".onnx")):
        raise ValueError(
            "The Keras model comes first, a .keras file, the folder of a run, "
            "a file of weights or a variant, and then what was exported. "
            f"Received first: {name}"
        )


def main(argv):
    """Verifies as the command line says."""
    if len(argv) != 3:
        raise app.UsageError("Expected two arguments: MODEL ARTIFACT.")
    _, name, artifact = argv
    output = export_flags.OUTPUT.value
    export_flags.begin(argv[:1])
    with export_flags.errors_end_it():
        check_order(name)
        if output:
            check_destination(output, (".json",), export_flags.OVERWRITE.value)
        model, names = export_flags.load_model(name)
        if export_flags.CROP.value is None:
            fraction = read_crop_fraction(artifact)
            flags.FLAGS.set_default("crop_fraction", fraction)
        if export_flags.ORIENTATION.value is None:
            orientation = read_orientation(artifact)
            flags.FLAGS.set_default("orientation", orientation)
        report = export_flags.check(
            artifact,
            model,
            export_flags.load_images(model, names),
            runtime=_RUNTIME.value,
            signature=_SIGNATURE.value,
            max_pixel=int(_MAX_PIXEL.value),
        )
        if output:
            report.save(output)
    print(report.table())
    if not report.passed:
        broken = describe(report.broken)
        sys.exit(f"Outside the limits: {broken}")
