"""Parameter names and layouts: PyTorch's (timm, the authors) and Keras's.

The Keras side is the path of the variable in the model, such as
`block_0/depthwise/kernel`. A PyTorch state dict may use

- timm's names: `stem.0.weight`, `blocks.0.0.fn.0.weight`, `head.weight`;
- the names of the authors' flat `nn.Sequential`: `0.weight`,
  `3.0.fn.0.weight`, and the classifier as the last module.
"""

import re

import numpy as np

_OUTER_LAYERS = {
    "stem.0": "patch_embed/conv",
    "stem.2": "patch_embed/norm",
    "head": "predictions",
}
_BLOCK_LAYERS = {
    "0.fn.0": "depthwise",
    "0.fn.2": "depthwise_norm",
    "1": "pointwise",
    "3": "pointwise_norm",
}
_OUTER_MODULES = {layer: module for module, layer in _OUTER_LAYERS.items()}
_BLOCK_MODULES = {layer: module for module, layer in _BLOCK_LAYERS.items()}

_LINEAR_VARIABLES = {"weight": "kernel", "bias": "bias"}
_NORM_VARIABLES = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}

# The authors' nn.Sequential: convolution (0), activation (1), batch norm (2),
# the blocks (3 to depth + 2), pooling, flatten and the classifier.
_FIRST_FLAT_BLOCK = 3
_FLAT_MODULES_BEFORE_CLASSIFIER = 5

# Common names of a network's last module.
_CLASSIFIERS = ("head", "fc", "classifier")

_INDEX = "(0|[1-9][0-9]{0,3})"


def variable_names(layer):
    """Names the variables of one of ConvMixer's layers.

    Args:
        layer: Path of the layer in the model, such as `"block_0/depthwise"`.

    Returns:
        Tuple of names in the order in which Keras saves them, or `None` if
        ConvMixer has no such layer.
    """
    if torch_module(layer) is None:
        return None
    return tuple(_variables(layer).values())


def is_convmixer_variable(path):
    """Returns whether `path` is the path of a variable of a ConvMixer."""
    layer, _, name = path.rpartition("/")
    return name in (variable_names(layer) or ())


def convmixer_path(path):
    """Returns a variable's path within its ConvMixer.

    Args:
        path: Path of the variable in a model, such as
            `"encoder/block_0/depthwise/kernel"`.

    Returns:
        String such as `"block_0/depthwise/kernel"`, or `None` if ConvMixer
        has no such variable.
    """
    parts = path.split("/")
    for tail in ("/".join(parts[-3:]), "/".join(parts[-2:])):
        if is_convmixer_variable(tail):
            return tail
    return None


def rank(path):
    """Returns the number of axes of the ConvMixer variable at `path`."""
    return len(_torch_axes(path))


def keras_layer(module):
    """Maps timm's name of a module to the path of the Keras layer, or `None`.

    Args:
        module: String such as `"blocks.0.1"`.

    Returns:
        String such as `"block_0/pointwise"`.
    """
    match = re.fullmatch(rf"blocks\.{_INDEX}\.(.+)", module)
    if match is None:
        return _OUTER_LAYERS.get(module)
    layer = _BLOCK_LAYERS.get(match[2])
    return layer and f"block_{match[1]}/{layer}"


def torch_module(layer):
    """Maps the path of a Keras layer to timm's name of the module, or `None`.

    Args:
        layer: String such as `"block_0/pointwise"`.

    Returns:
        String such as `"blocks.0.1"`.
    """
    match = re.fullmatch(rf"block_{_INDEX}/(.+)", layer)
    if match is None:
        return _OUTER_MODULES.get(layer)
    module = _BLOCK_MODULES.get(match[2])
    return module and f"blocks.{match[1]}.{module}"


def to_keras(state_dict):
    """Renames and transposes a PyTorch state dict for Keras.

    Args:
        state_dict: Dictionary from PyTorch names (timm's or the authors') to
            NumPy arrays. `num_batches_tracked`, which Keras doesn't have, is
            skipped.

    Returns:
        Dictionary from Keras variable paths to NumPy arrays: convolutions as
        (height, width, in, out), depthwise ones as (height, width, dim, 1),
        the classifier as (in, out).

    Raises:
        ValueError: If a name isn't a ConvMixer's or an array has the wrong
            rank for its name.
    """
    weights = {}
    unknown = []
    for name, timm_name in _timm_names(state_dict).items():
        module, _, parameter = (timm_name or "").rpartition(".")
        layer = keras_layer(module)
        if layer is None:
            unknown.append(name)
        elif parameter in _variables(layer):
            path = f"{layer}/{_variables(layer)[parameter]}"
            array = np.asarray(state_dict[name])
            weights[path] = _transpose(array, path, _torch_axes(path), name)
        elif not (_is_norm(layer) and parameter == "num_batches_tracked"):
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"it has names that no ConvMixer has: {abbreviate(unknown)}."
        )
    return weights


def to_timm(weights):
    """Renames and transposes Keras weights into a state dict for timm.

    Args:
        weights: Dictionary from Keras variable paths to NumPy arrays.

    Returns:
        Dictionary from timm's names to C-contiguous NumPy arrays, with an
        int64 zero as the `num_batches_tracked` of every batch norm.

    Raises:
        ValueError: If a path isn't a ConvMixer's or an array has the wrong
            rank for its path.
    """
    state_dict = {}
    for path, array in weights.items():
        if not is_convmixer_variable(path):
            raise ValueError(f"No ConvMixer has a variable `{path}`.")
        layer, _, name = path.rpartition("/")
        parameters = {value: key for key, value in _variables(layer).items()}
        module = torch_module(layer)
        array = _transpose(array, path, np.argsort(_torch_axes(path)), path)
        state_dict[f"{module}.{parameters[name]}"] = array
        if _is_norm(layer):
            tracked = f"{module}.num_batches_tracked"
            state_dict[tracked] = np.zeros((), "int64")
    return state_dict


def starts_of_torch_names(names):
    """Finds the prefixes after which a ConvMixer's PyTorch names start.

    Args:
        names: Iterable of names, such as `"module.stem.0.weight"`.

    Returns:
        List of strings, such as `"module."`; none if there is no ConvMixer.
    """
    names = set(names)
    stem = _before("stem.0.weight", names, ".")
    block = _before("blocks.0.0.fn.0.weight", names, ".")
    flat = _before("0.weight", names, ".")
    flat = {p for p in flat if f"{p}3.0.fn.0.weight" in names}
    # A part of a ConvMixer is recognized unless it is in another module.
    part = {"" for name in names if keras_layer(name.rpartition(".")[0])}
    return sorted(stem & block | flat or stem | block or part)


def starts_of_keras_names(layers):
    """Finds the prefixes after which the paths of a ConvMixer's layers start.

    Args:
        layers: Iterable of paths, such as `"encoder/patch_embed/conv"`.

    Returns:
        List of strings, such as `"encoder/"`; none if there is no ConvMixer.
    """
    layers = set(layers)
    stem = _before("patch_embed/conv", layers, "/")
    block = _before("block_0/depthwise", layers, "/")
    part = {"" for layer in layers if torch_module(layer)}
    return sorted(stem & block or stem | block or part)


def _before(end, names, separator):
    """Lists the prefixes of the names that end in `end`."""
    starts = {name.removesuffix(end) for name in names if name.endswith(end)}
    return {x for x in starts if not x or x.endswith(separator)}


def abbreviate(names, limit=5):
    """Formats names for an error message: the first ones and a count."""
    names = list(names)
    shown = ", ".join(names[:limit])
    hidden = len(names) - limit
    return f"{shown} and {hidden} more" if hidden > 0 else shown


def _is_norm(layer):
    return layer.endswith("norm")


def _variables(layer):
    return _NORM_VARIABLES if _is_norm(layer) else _LINEAR_VARIABLES


def _torch_axes(path):
    """Lists, per axis of the Keras variable, the axis of the PyTorch tensor."""
    if path == "predictions/kernel":
        return (1, 0)
    if path.endswith("depthwise/kernel"):
        return (2, 3, 0, 1)  # (dim, 1, h, w) -> (h, w, dim, 1)
    if path.endswith("kernel"):
        return (2, 3, 1, 0)  # (out, in, h, w) -> (h, w, in, out)
    return (0,)


def _transpose(array, path, axes, name):
    if array.ndim != len(axes):
        raise ValueError(
            f"`{name}` must have {len(axes)} axes. "
            f"Received an array of shape {array.shape}."
        )
    return np.array(array.transpose(axes), order="C")


def _timm_names(names):
    """Maps each name to timm's name for it, or to `None` if there is none."""
    if any(name[:1].isdigit() for name in names):
        return _flat_to_timm(names)
    return {name: name for name in names} | _classifier_names(names)


def _classifier_names(names):
    """Maps names of a one-module classifier other than `head`.

    Examples are `fc`, and `head.1` after a dropout layer.
    """
    classifier = [x for x in names if x.split(".")[0] in _CLASSIFIERS]
    modules = {name.rpartition(".")[0] for name in classifier}
    if len(modules) != 1:
        return {}
    return {x: f"head.{x.rpartition('.')[2]}" for x in classifier}


def _flat_to_timm(names):
    split = {name: re.fullmatch(rf"{_INDEX}\.(.+)", name) for name in names}
    blocks = [
        int(match[1]) - _FIRST_FLAT_BLOCK
        for match in split.values()
        if match and "." in match[2]
    ]
    depth = max(blocks, default=-1) + 1
    stem = {"0": "stem.0", "2": "stem.2"}
    stem[str(depth + _FLAT_MODULES_BEFORE_CLASSIFIER)] = "head"
    timm_names = {}
    for name, match in split.items():
        timm_names[name] = None
        if match and match[1] in stem:
            timm_names[name] = f"{stem[match[1]]}.{match[2]}"
        elif match and int(match[1]) >= _FIRST_FLAT_BLOCK:
            block = int(match[1]) - _FIRST_FLAT_BLOCK
            timm_names[name] = f"blocks.{block}.{match[2]}"
    return timm_names
