"""Compares an exported file with its model, in the runtime that it is for.

    python export/verify.py MODEL ARTIFACT --images FOLDER --output report.json

MODEL is a `.keras` file, the folder of a run, a file of weights or a variant
(1536_20, 768_32, 1024_20, 512_16, 256_8), ARTIFACT a SavedModel's folder or a
`.tflite`, `.onnx` or `.keras` file. If MODEL is no classifier, features are
compared. Prints a table, and ends with status 1 if a limit is broken, which it
names. Without flags the limits are those of the number format, see
`convmixer_tf.export.Limits`.

Time: a forward pass of each over the images.
"""

from absl import app
from absl import flags

from convmixer_tf.cli import verify

flags.adopt_module_key_flags(verify)

if __name__ == "__main__":
    app.run(verify.main)
