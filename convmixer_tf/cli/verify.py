"""Compares an exported file with its model in the file's runtime.

    convmixer verify MODEL ARTIFACT --images FOLDER --output report.json

MODEL is a `.keras` file, a run folder, a weights file or a variant (1536_20,
768_32, 1024_20, 512_16, 256_8). ARTIFACT is a SavedModel folder or a `.tflite`,
`.onnx` or `.keras` file. If MODEL is not a classifier, features are compared.
The command prints a table. If a limit is broken, it names the limit and exits
with status 1. The default limits depend on the number format; see
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
    "runtime", None, RUNTIMES, "Runtime. Default: depends on the format."
)
_SIGNATURE = flags.DEFINE_string(
    "signature", None, "Signature of a SavedModel. Default: serving_default."
)
_MAX_PIXEL = flags.DEFINE_enum(
    "max_pixel", "255", ["255", "1"], "Value of white in the file."
)


def check_order(name):
    """Raises an error if the exported file is passed as the model."""
    folder = os.path.isdir(name) and find_model(name) == name
    if folder or name.endswith((".tflite", ".onnx")):
        raise ValueError(
            "The first argument must be the Keras model (a .keras file, a run "
            "folder, a weights file or a variant), the second the exported "
            f"file. Received first: {name}"
        )


def main(argv):
    """Verifies the artifact."""
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
