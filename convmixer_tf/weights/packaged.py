"""The weights that are part of this package, and what was measured of them.

Three files of one name: `.safetensors`, the weights in float16 under timm's
names; `.json`, their SHA-256 and what was measured; `.md`, the model card.
`recipes/package_cifar10.py` writes them.
"""

import hashlib
import json
import pathlib

from convmixer_tf.weights.published import PUBLISHED_WEIGHTS

FOLDER = pathlib.Path(__file__).with_name("packaged")


def find_packaged(name):
    """Finds weights in this package, and checks that they are whole.

    Args:
        name: One of the names in `PUBLISHED_WEIGHTS` without repository and
            file.

    Returns:
        Path of a `.safetensors` file.

    Raises:
        OSError: If the file is not there, or its content is damaged.
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
    """Reads what was measured of weights in this package.

    Args:
        name: One of the names in `PUBLISHED_WEIGHTS` without repository and
            file.

    Returns:
        Dictionary: `"sha256"` of the file of weights, `"top1"`, `"top5"` and
        `"loss"` on `"images"` test images, and how they were trained.

    Raises:
        OSError: If they are not there.
    """
    path = FOLDER / f"{name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _incomplete(name, path) from None


def _incomplete(name, path):
    return FileNotFoundError(
        f"The weights of {name} are not in this installation, which lacks "
        f"`{path}`. Install the package again; in a checkout, "
        "`python recipes/package_cifar10.py` makes the files from a run. Or "
        "pass the path of a file, or None, as `weights`."
    )
