"""The files that the two processes exchange in one folder.

settings.json     the settings, and fingerprints of the inputs
graph.json        the model's layers, as `graph.describe` lists them
weights.npz       their weights, by layer/number
inputs.npz        images, labels, calibration images, expected outputs
checkpoints/      of the training
tuned.npz         the new weights, and outputs before and after the training
result.json       measurements; written last
"""

import hashlib
import json
import os
import pathlib

import numpy as np

from convmixer_tf.files import replaced

SETTINGS, GRAPH, RESULT = "settings.json", "graph.json", "result.json"
WEIGHTS, INPUTS, TUNED = "weights.npz", "inputs.npz", "tuned.npz"
CHECKPOINTS = "checkpoints"

# Exit status of a worker whose output is the message of a `ValueError`.
EXPECTED_ERROR = 3


def read_json(folder, name):
    """Reads a JSON file, or returns `None` if there is none."""
    path = pathlib.Path(folder) / name
    return json.loads(path.read_text()) if path.is_file() else None


def write_arrays(folder, name, arrays):
    """Writes a dictionary of arrays as one file, atomically."""
    with replaced(os.path.join(folder, name)) as unfinished:
        np.savez(unfinished, **arrays)


def read_arrays(folder, name):
    """Reads a dictionary of arrays."""
    with np.load(os.path.join(folder, name)) as arrays:
        return dict(arrays)


def flatten(weights):
    """Names the weights of each layer: `layer/0`, `layer/1`."""
    return {
        f"{name}/{i}": array
        for name, arrays in weights.items()
        for i, array in enumerate(arrays)
    }


def unflatten(arrays):
    """Reverses `flatten`: collects the weights of each layer in a list."""
    weights = {}
    for name in arrays:
        layer, _, _ = name.rpartition("/")
        weights.setdefault(layer, []).append(arrays[name])
    return weights


def fingerprint(arrays):
    """Returns a hash of a dictionary of arrays: names, types and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array)
    return digest.hexdigest()
