"""What the two processes write for each other into a folder.

settings.json     what is to be done, and a fingerprint of the inputs
graph.json        the model's layers, as `graph.describe` lists them
weights.npz       their weights, by layer/number
inputs.npz        images, labels, calibration images, expected outputs
checkpoints/      of the training
tuned.npz         the new weights, and the twin's outputs
result.json       what came of it; written last
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

# Exit status of a worker that says, in its output, what is wrong.
EXPECTED_ERROR = 3


def write_json(folder, name, content):
    """Writes a JSON file, replacing it whole."""
    path = os.path.join(folder, name)
    with replaced(path) as unfinished:
        pathlib.Path(unfinished).write_text(json.dumps(content, indent=1))


def read_json(folder, name):
    """Reads a JSON file; `None` if there is none."""
    path = pathlib.Path(folder) / name
    return json.loads(path.read_text()) if path.is_file() else None


def write_arrays(folder, name, arrays):
    """Writes a dictionary of arrays, replacing the file whole."""
    with replaced(os.path.join(folder, name)) as unfinished:
        np.savez(unfinished, **arrays)


def read_arrays(folder, name):
    """Reads a dictionary of arrays."""
    with np.load(os.path.join(folder, name)) as arrays:
        return dict(arrays)


def flatten(weights):
    """Names each of the weights of each layer: `layer/0`, `layer/1`."""
    return {
        f"{name}/{i}": array
        for name, arrays in weights.items()
        for i, array in enumerate(arrays)
    }


def unflatten(arrays):
    """Collects what `flatten` named into a list per layer."""
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
