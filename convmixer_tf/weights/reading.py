"""Reading any supported file of weights into one form."""

import os

import ml_dtypes
import numpy as np

from convmixer_tf.weights.keras_files import read_h5
from convmixer_tf.weights.keras_files import read_keras
from convmixer_tf.weights.names import few
from convmixer_tf.weights.names import rank
from convmixer_tf.weights.names import to_keras
from convmixer_tf.weights.torch_files import read_torch

# The suffix decides; the longer ones come first.
_READERS = {
    ".weights.h5": read_h5,
    ".keras": read_keras,
    ".safetensors": lambda path: to_keras(_read_safetensors(path)),
    ".pth.tar": lambda path: to_keras(read_torch(path)),
    ".pth": lambda path: to_keras(read_torch(path)),
    ".bin": lambda path: to_keras(read_torch(path)),
}

_FLOAT_DTYPES = {
    np.dtype(ml_dtypes.bfloat16),
    np.dtype("float16"),
    np.dtype("float32"),
    np.dtype("float64"),
}


def read_weights(path):
    """Reads a file of ConvMixer weights. Nothing in it is executed.

    Args:
        path: Path of a `.weights.h5` or `.keras` file of Keras 3, of a
            `.safetensors` file with timm's or the authors' names, or of a
            PyTorch checkpoint (`.pth`, `.pth.tar` or `.bin`; needs `torch`).

    Returns:
        Dictionary from variable paths, such as `"block_0/depthwise/kernel"`,
        to NumPy arrays in Keras's layout and the file's precision. All values
        are finite. It isn't checked that the dictionary is complete.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If the file needs PyTorch and that isn't installed.
        ValueError: If the suffix is another one, the file is damaged, or it
            holds something other than the weights of a ConvMixer.

    Example:

    ```python
    weights = read_weights("convmixer_768_32.safetensors")
    weights["patch_embed/conv/kernel"].shape  # (7, 7, 3, 768)
    ```
    """
    path = os.fspath(path)
    reader = _find_reader(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file of weights `{path}`.")
    try:
        if not os.path.isfile(path):
            raise ValueError("it is not a file.")
        if os.path.getsize(path) == 0:
            raise ValueError("it is empty.")
        weights = reader(path)
        _check_values(weights)
    except ValueError as error:
        raise ValueError(
            f"Cannot read weights from `{path}`: {error}"
        ) from error
    return weights


def _find_reader(path):
    for suffix, reader in _READERS.items():
        if path.endswith(suffix):
            return reader
    raise ValueError(
        f"A file of weights must end in one of {', '.join(_READERS)}. "
        f"Received: `{path}`"
    )


def _read_safetensors(path):
    import safetensors
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"it is not a safetensors file or is truncated ({error})."
        ) from error
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"it holds numbers of a type that NumPy lacks ({error})."
        ) from error


def _check_values(weights):
    """Checks for arrays of the right rank with finite float numbers."""
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
            f"it holds values that are not finite, in {few(broken)}."
        )
