"""The weights that ship with this package, and their measured accuracy.

There are three files for each name: `.safetensors`, the weights in float16 with
timm's names; `.json`, their SHA-256 and measurements; `.md`, the model card.
`recipes/package_cifar10.py` writes them.
"""

import hashlib
import json
import pathlib

from convmixer_tf.weights.published import PUBLISHED_WEIGHTS

FOLDER = pathlib.Path(__file__).with_name("packaged")


def find_packaged(name):
    """Finds weights in this package and verifies their SHA-256.

    Args:
        name: A name in `PUBLISHED_WEIGHTS` without repository and file.

    Returns:
        Path of a `.safetensors` file.

    Raises:
        OSError: If the file is missing, or its content is damaged.
    """
    path = FOLDER / PUBLISHED_WEIGHTS[name].filename
    expected = read_facts(name)["sha256"]
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise _incomplete(name, path) from None
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise OSError(
            f"The weights of {name} in this installation are damaged: the "
            f"SHA-256 of `{path}` is {actual}, expected {expected}. Nothing "
            "was loaded. Install the package again."
        )
    return str(path)


def read_facts(name: str) -> dict:
    """Reads the measurements of weights in this package.

    Args:
        name: A name in `PUBLISHED_WEIGHTS` without repository and file.

    Returns:
        Dictionary: `"sha256"` of the weights file, `"top1"`, `"top5"` and
            `"loss"` on `"images"` test images, and how they were trained.

    Raises:
        OSError: If they are missing.
    """
    path = FOLDER / f"{name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _incomplete(name, path) from None


def _incomplete(name, path):
    return FileNotFoundError(
        f"The weights of {name} are not in this installation: `{path}` is "
        "missing. Install the package again. In a checkout, `python "
        "recipes/package_cifar10.py` creates the files from a run. Or pass the "
        "path of a file, or None, as `weights`."
    )
