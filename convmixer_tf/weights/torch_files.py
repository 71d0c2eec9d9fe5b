"""Reads PyTorch checkpoints without running code from their pickles."""

import re
import warnings

import ml_dtypes

from convmixer_tf.weights.names import abbreviate

_SAVE_WEIGHTS = (
    "Save only the weights in the program that has the model: "
    "`torch.save(model.state_dict(), path)`."
)
_MAX_NESTING = 8


class _Ignored:
    """Placeholder for an object of a checkpoint that is ignored."""

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        pass


def _new_dict(*args):
    """Placeholder for a dictionary with default values."""
    return {}


def _new_list(*args):
    """Placeholder for a list type, which PyTorch fills."""
    return []


# Other types that checkpoints hold beside tensors and plain values. They are
# never imported or called: a placeholder from above or a dictionary replaces
# each.
_DICTIONARIES = (
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
_OTHERS = {
    "argparse": ("Namespace",),
    "builtins": (
        "bool", "bytes", "dict", "float", "frozenset", "int", "list", "range",
        "slice", "str", "tuple", "type",
    ),
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "numpy": ("dtype", "ndarray"),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.numeric": ("_frombuffer",),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.numeric": ("_frombuffer",),
    "pathlib": (
        "Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath",
        "WindowsPath",
    ),
    "pathlib._local": (
        "Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath",
        "WindowsPath",
    ),
    "types": ("SimpleNamespace",),
    "uuid": ("UUID",),
}  # fmt: skip


def read_torch(path):
    """Reads the tensors of a PyTorch checkpoint.

    Only tensors and plain values are unpickled (`weights_only=True`). NumPy
    numbers, paths, dates, `argparse.Namespace` and similar objects are ignored.

    Args:
        path: Path of a file that `torch.save` wrote.

    Returns:
        Dictionary from places in the checkpoint, such as `"state_dict"`, or
        `""` for the checkpoint itself, to dictionaries from names to tensors.

    Raises:
        ImportError: If PyTorch isn't installed.
        ValueError: If the file is damaged, isn't a PyTorch file, has no
            tensors, or holds other Python objects. These are never unpickled.
    """
    torch = _import_torch()
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            torch.serialization.safe_globals(_replacements()),
        ):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # A damaged file raises many types.
        raise ValueError(_explain(error)) from None
    found = _dictionaries(torch, checkpoint)
    if not found:
        raise ValueError(
            f"it holds no tensors, but {_described(checkpoint)}. "
            f"{_SAVE_WEIGHTS}"
        )
    return found


def to_numpy(name, tensor):
    """Converts a tensor of a checkpoint to an array.

    Args:
        name: The tensor's name in the checkpoint.
        tensor: PyTorch tensor.

    Returns:
        NumPy array of the same precision.

    Raises:
        ValueError: If the tensor is sparse or quantized, has no values, or has
            a precision that NumPy does not have.
    """
    import torch

    kinds = {
        "a sparse tensor": tensor.layout != torch.strided,
        "a quantized tensor": tensor.is_quantized,
        "a tensor without values, on the `meta` device": tensor.is_meta,
    }
    kind = next((kind for kind, applies in kinds.items() if applies), None)
    if kind:
        raise ValueError(
            f"`{name}` is {kind}, not a dense tensor of floating-point "
            "numbers. Save the weights of the model in float32."
        )
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:  # NumPy has no bfloat16.
        bits = tensor.contiguous().view(torch.int16)
        return bits.numpy().view(ml_dtypes.bfloat16)
    try:
        return tensor.resolve_conj().resolve_neg().numpy()
    except TypeError:
        raise ValueError(
            f"`{name}` holds numbers of a type that NumPy does not have "
            f"({tensor.dtype}). Save the weights of the model in float32."
        ) from None


def _import_torch():
    try:
        import torch
    except ImportError:
        raise ImportError(
            "Reading a PyTorch checkpoint needs PyTorch: `pip install torch`. "
            "A .safetensors file can be read without it."
        ) from None
    return torch


def _replacements():
    """Lists the placeholders and the types that they replace."""
    others = (f"{module}.{x}" for module in _OTHERS for x in _OTHERS[module])
    return [
        *((_Ignored, name) for name in others),
        *((dict, name) for name in _DICTIONARIES),
        (_new_dict, "collections.defaultdict"),
        (_new_list, "collections.deque"),
    ]


def _explain(error):
    """Explains why PyTorch could not read the file."""
    found = re.search(r"(?:GLOBAL|function) ([\w.]+)", str(error))
    if found is None:
        return (
            "it is a pickle that is not a PyTorch checkpoint, or is damaged "
            f"or truncated. {_SAVE_WEIGHTS}"
        )
    return (
        f"it holds a Python object, `{found[1]}`, which was not unpickled "
        f"because that may run arbitrary code. {_SAVE_WEIGHTS}"
    )


def _dictionaries(torch, checkpoint):
    """Maps places in a checkpoint to its dictionaries of tensors."""
    found = {}
    seen = set()
    waiting = [((), checkpoint)]
    if not isinstance(checkpoint, dict | list | tuple):
        waiting = [((), [checkpoint])]
    for place, value in waiting:
        if id(value) in seen or len(place) > _MAX_NESTING:
            continue
        seen.add(id(value))
        is_dict = isinstance(value, dict)
        for key, item in value.items() if is_dict else enumerate(value):
            if isinstance(item, torch.Tensor):
                found.setdefault(".".join(place), {})[str(key)] = item
            elif isinstance(item, dict | list | tuple):
                waiting.append(((*place, str(key)), item))
    return found


def _described(value):
    """Describes a checkpoint without tensors."""
    if not isinstance(value, dict | list | tuple):
        return f"one value: {_kind(value)}"
    if isinstance(value, dict):
        items = [f"{key} ({_kind(x)})" for key, x in value.items()]
    else:
        items = [_kind(x) for x in value]
    return f"a {_kind(value)} of {abbreviate(items) or 'nothing'}"


def _kind(value):
    """Returns the name of a value's type, or that it was not read."""
    if isinstance(value, _Ignored):
        return "an object that is not read"
    return type(value).__name__
