"""Reads any supported weights file into one common form."""

import os
import warnings
import zipfile

import ml_dtypes
import numpy as np

from convmixer_tf.files import PathLike
from convmixer_tf.weights.finding import find_torch
from convmixer_tf.weights.keras_files import read_h5
from convmixer_tf.weights.keras_files import read_keras
from convmixer_tf.weights.names import abbreviate
from convmixer_tf.weights.names import rank
from convmixer_tf.weights.names import to_keras
from convmixer_tf.weights.torch_files import read_torch
from convmixer_tf.weights.torch_files import to_numpy

_H5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ZIP_SIGNATURE = b"PK\x03\x04"
_PICKLE_SIGNATURE = b"\x80"

_FLOAT_DTYPES = {
    np.dtype(ml_dtypes.bfloat16),
    np.dtype("float16"),
    np.dtype("float32"),
    np.dtype("float64"),
}


def read_weights(
    path: PathLike, *, key: str | None = None
) -> dict[str, np.ndarray]:
    """Reads a ConvMixer weights file. Nothing in it is executed.

    The format is detected from the content, not from the name. The ConvMixer is
    found under any keys and prefixes. Like timm, it takes the first of
    `state_dict_ema`, `model_ema`, `state_dict` and `model` that exists. A
    warning lists other tensors in the file.

    Args:
        path: Path of a Keras 3 `.weights.h5` or `.keras` file, a `.safetensors`
            file with timm's or the authors' names, a PyTorch checkpoint (needs
            `torch`), or a Keras 2 `.h5` file of keras-cv's ConvMixer. For the
            last, the moving variances are increased by 1e-3 - 1e-5, the
            difference between Keras' epsilon and this package's, so that the
            outputs are the same.
        key: Which ConvMixer to read if the file holds several: its keys and its
            prefix joined by dots, such as `"teacher"`. Without it, such a file
            raises an error that lists them.

    Returns:
        Dictionary from variable paths, such as `"block_0/depthwise/kernel"`,
        to NumPy arrays in Keras' layout and the file's precision. All values
        are finite. The dictionary is not checked for completeness.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If the file needs PyTorch and that isn't installed.
        ValueError: If the file is damaged or does not hold the weights of a
            ConvMixer.

    Example:

    ```python
    weights = read_weights("convmixer_768_32.safetensors")
    weights["patch_embed/conv/kernel"].shape  # (7, 7, 3, 768)
    ```
    """
    path = os.fspath(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"The weights file `{path}` does not exist.")
    try:
        if not os.path.isfile(path):
            raise ValueError("it is not a file.")
        weights, outside = _read(path, key)
        _check_values(weights)
    except ValueError as error:
        raise ValueError(
            f"Cannot read weights from `{path}`: {error}"
        ) from None
    if outside:
        warnings.warn(
            f"`{path}` holds more than a ConvMixer. These entries were not "
            f"read: {abbreviate(outside)}.",
            stacklevel=1,  # The same place, so that Python warns once.
        )
    return weights


def _read(path, key):
    """Returns the weights and the names of the other entries."""
    with open(path, "rb") as file:
        start = file.read(64)
    if not start:
        raise ValueError("it is empty.")
    if start.startswith(_H5_SIGNATURE):
        return read_h5(path, key)
    if start.startswith(_ZIP_SIGNATURE):
        return _read_zip(path, key)
    # The length of the header, then the header in JSON.
    if start[8:9] == b"{":
        return _from_torch({"": _read_safetensors(path)}, key)
    if start.startswith(_PICKLE_SIGNATURE):  # PyTorch before 1.6.
        return _from_torch(read_torch(path), key)
    raise ValueError(
        "it is not a Keras, safetensors or PyTorch weights file, or is "
        f"truncated. It starts with {start[:32]!r}."
    )


def _read_zip(path, key):
    """Reads a zip archive from Keras or PyTorch."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # A damaged archive raises many types.
        raise ValueError(
            f"it is a zip archive that is damaged or truncated ({error})."
        ) from None
    inner = {name.rpartition("/")[2] for name in names}
    if {"model.weights.h5", "config.json"} & set(names):
        return read_keras(path, key)
    if "constants.pkl" in inner:
        raise ValueError(
            "it is a TorchScript archive, which is a program. Save only its "
            "weights: `torch.save(torch.jit.load(path).state_dict(), "
            "new_path)`."
        )
    if "data.pkl" in inner:
        return _from_torch(read_torch(path), key)
    raise ValueError(
        "it is a zip archive, but not from Keras 3 or PyTorch. It holds: "
        f"{abbreviate(names) or 'nothing'}."
    )


def _from_torch(dictionaries, key):
    entries, outside = find_torch(dictionaries, key)
    arrays = {
        name: x if isinstance(x, np.ndarray) else to_numpy(name, x)
        for name, x in entries.items()
    }
    return to_keras(arrays), outside


def _read_safetensors(path):
    import safetensors
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"it is not a safetensors file or is truncated ({error})."
        ) from None
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"it holds numbers of a type that NumPy does not have ({error})."
        ) from None


def _check_values(weights):
    """Checks that arrays have the right rank and finite float values."""
    if not weights:
        raise ValueError("it holds no weights of a ConvMixer.")
    for path, array in weights.items():
        if array.ndim != rank(path):
            raise ValueError(
                f"`{path}` must have {rank(path)} axes. "
                f"Received shape {array.shape}."
            )
        if array.dtype not in _FLOAT_DTYPES:
            raise ValueError(
                f"`{path}` must hold floating-point numbers. "
                f"Received dtype {array.dtype}."
            )
    broken = [
        path for path, array in weights.items() if not np.isfinite(array).all()
    ]
    if broken:
        raise ValueError(
            f"it holds values that are not finite, in {abbreviate(broken)}."
        )
