"""Converts ConvMixer weights to `.weights.h5` (Keras) or `.safetensors` (timm).

    python export/convert_weights.py --source convmixer_768_32.pth.tar \
        --destination convmixer_768_32.weights.h5

Reads files of Keras 3 and safetensors, and with PyTorch installed checkpoints
of timm, of the authors and of other training programs, whatever their name.
"""

import sys

from absl import app
from absl import flags
from absl import logging

from convmixer_tf.files import made_parents
from convmixer_tf.models import convert_weights

_SOURCE = flags.DEFINE_string(
    "source", None, "File of weights to read.", required=True
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
    "Which ConvMixer, of a file that holds several: `teacher`, for example.",
)


def main(argv):
    """Converts the file that the flags name."""
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
