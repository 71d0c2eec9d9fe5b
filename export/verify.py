"""Compares an exported file with its model in the file's runtime.

    python export/verify.py MODEL ARTIFACT --images FOLDER --output report.json

MODEL is a `.keras` file, a run folder, a weights file or a variant (1536_20,
768_32, 1024_20, 512_16, 256_8). ARTIFACT is a SavedModel folder or a `.tflite`,
`.onnx` or `.keras` file. If MODEL is not a classifier, features are compared.
The script prints a table. If a limit is broken, it names the limit and exits
with status 1. The default limits depend on the number format; see
`convmixer_tf.export.Limits`.

Time: a forward pass of each over the images.
"""

from absl import app
from absl import flags

from convmixer_tf.cli import verify

flags.adopt_module_key_flags(verify)

if __name__ == "__main__":
    app.run(verify.main)
