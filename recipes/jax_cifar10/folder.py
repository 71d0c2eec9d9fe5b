"""What a run leaves in its folder, as `convmixer_tf.training` does."""

import csv
import io
import json
import os
import pathlib
import platform
import sys

import jax
import keras
import numpy as np

from convmixer_tf.files import replaced
from convmixer_tf.files import write_text

# What may differ when a run goes on: nothing that the weights depend on.
_NOT_PART_OF_THE_RESULT = ("depthwise",)


def write_log(path, history):
    """Writes the table of all epochs so far.

    Args:
        path: Path of the CSV file.
        history: List of dictionaries of the same keys, one for each epoch.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, history[0], lineterminator="\n")
    table.writeheader()
    table.writerows(history)
    write_text(path, text.getvalue())


def check_folder(folder, settings):
    """Checks that a run can be in a folder, before anything is written.

    Args:
        folder: Path of the folder. It may exist, from a run of the same
            settings that was stopped.
        settings: Dictionary of what the result depends on.

    Raises:
        NotADirectoryError: If it is a file.
        ValueError: If the folder is of a run with other settings.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(
            f"A run needs a folder (`--output`). Received the file {folder}"
        )
    path = folder / "config.json"
    if not path.exists():
        return
    old = json.loads(path.read_text(encoding="utf-8"))
    changed = [
        f"{name} was {old.get(name)!r} and is {value!r}"
        for name, value in json.loads(json.dumps(settings)).items()
        if name not in _NOT_PART_OF_THE_RESULT and old.get(name) != value
    ]
    if changed:
        raise ValueError(
            f"The folder {folder} holds a run with other settings: "
            f"{'; '.join(changed)}. Take another folder (`--output`), or the "
            "old settings."
        )


def environment():
    """Describes this process: its command, its versions, its devices."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "backend": keras.backend.backend(),
        "jax": jax.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "devices": [
            f"{device} {device.device_kind}" for device in jax.local_devices()
        ],
    }


def save_checkpoint(path, state, info):
    """Writes all that a run needs to go on, whole or not at all.

    Args:
        path: Path of the .npz file, which is replaced.
        state: `Engine.state`.
        info: What to keep with it, as JSON can hold it.
    """
    leaves = jax.tree.leaves(jax.device_get(state))
    with replaced(path) as unfinished, open(unfinished, "wb") as file:
        np.savez(file, *leaves, info=json.dumps(info))
        file.flush()
        os.fsync(file.fileno())


def read_checkpoint(path, state):
    """Reads what `save_checkpoint` wrote.

    Args:
        path: Path of the .npz file.
        state: `Engine.state` of the same model, whose values don't count.

    Returns:
        The state, and the `info`.

    Raises:
        ValueError: If it is of another model.
    """
    leaves, structure = jax.tree.flatten(state)
    with np.load(path) as file:
        found = [file[f"arr_{i}"] for i in range(len(file.files) - 1)]
        info = json.loads(str(file["info"]))
    if [x.shape for x in found] != [x.shape for x in leaves]:
        raise ValueError(
            f"The checkpoint {path} is of another model. Take another folder "
            "(`--output`)."
        )
    arrays = [jax.numpy.array(x) for x in found]
    return jax.tree.unflatten(structure, arrays), info
