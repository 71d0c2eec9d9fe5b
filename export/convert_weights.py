"""Converts ConvMixer weights to `.weights.h5` (Keras) or `.safetensors` (timm).

    python export/convert_weights.py --source convmixer_768_32.pth.tar \
        --destination convmixer_768_32.weights.h5

It reads Keras 3 and safetensors files. If PyTorch is installed, it also reads
checkpoints of timm, the authors and other training programs, with any file
name.
"""

import sys

from absl import app
from absl import flags
from absl import logging

from convmixer_tf.files import made_parents
from convmixer_tf.models import convert_weights

_SOURCE = flags.DEFINE_string(
    "source", None, "Weights file to read.", required=True
)
_DESTINATION = flags.DEFINE_string(
    "destination",
    None,
    "File to write, ending in .weights.h5 or .safetensors.",
    required=True,
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Whether to replace an existing file."
)
_KEY = flags.DEFINE_string(
    "key",
    None,
    "Which ConvMixer to read from a file with several, such as `teacher`.",
)


def main(argv):
    """Converts the file."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    try:
        with made_parents(_DESTINATION.value):
            architecture = convert_weights(
                _SOURCE.value,
                _DESTINATION.value,
                overwrite=_OVERWRITE.value,
                key=_KEY.value,
            )
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    logging.info("Wrote %s: %s", _DESTINATION.value, architecture)


if __name__ == "__main__":
    app.run(main)
