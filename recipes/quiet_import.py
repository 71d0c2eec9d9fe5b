"""Imports the package and suppresses TensorFlow's log messages.

TensorFlow has no setting for this because its log is set up afterwards.
"""

import importlib
import os
import sys
import tempfile

# Messages below errors that are not useful for training a model.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

_NOISE = (
    "WARNING: All log messages before absl",
    "I0000 ",
    "To enable the following instructions:",
)


def _import_package():
    try:
        kept = os.dup(2)
    except OSError:  # There is no stderr.
        importlib.import_module("convmixer_tf")
        return
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            importlib.import_module("convmixer_tf")
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            said.seek(0)
            lines = (x.decode(errors="backslashreplace") for x in said)
            sys.stderr.writelines(x for x in lines if not x.startswith(_NOISE))


_import_package()
