"""Reads weights from Keras files without building a model.

Keras stores a model as HDF5 groups: `layers/<class>/<attribute>/vars/0`. The
attribute `name` of a group `vars` is the layer's name. Each `vars` holds the
layer's variables in order. Because this module reads them directly, everything
is checked before a variable of a model changes, and nothing from the file's
`config.json` is run.
"""

import io
import json
import zipfile

import h5py
import ml_dtypes
import numpy as np

from convmixer_tf.weights.effective import dequantize
from convmixer_tf.weights.effective import round_bfloat16
from convmixer_tf.weights.finding import find_keras
from convmixer_tf.weights.hdf5 import child
from convmixer_tf.weights.hdf5 import read_array
from convmixer_tf.weights.keras2_files import keras2_group
from convmixer_tf.weights.keras2_files import read_layers
from convmixer_tf.weights.names import abbreviate
from convmixer_tf.weights.names import variable_names

_H5_IN_KERAS = "model.weights.h5"
_CONFIG_IN_KERAS = "config.json"
# A ConvMixer needs layers / block / depthwise_norm / vars.
_MAX_NESTING = 12

# The variables of a quantized `Dense` in Keras' order, without those for
# training only. Zeros and groups mean int4 in blocks of inputs. For `gptq` and
# `awq`, Keras 3.15 does not save the zeros, so such a file can't be read.
_QUANTIZED = {
    "int8": ("kernel", "bias", "kernel_scale"),
    "int4": ("kernel", "bias", "kernel_scale", "kernel_zero", "g_idx"),
    "float8": ("kernel", "bias", None, None, "kernel_scale", None, None, None),
}


def read_h5(file, key=None):
    """Reads a `.weights.h5` file from Keras 3's `save_weights`.

    A quantized classifier is dequantized. Keras 2 files of keras-cv's ConvMixer
    can also be read.

    Args:
        file: Path or binary file object.
        key: Path of the ConvMixer in the model, if there are several.

    Returns:
        Tuple of two: a dictionary from variable paths, such as
        `"block_0/depthwise/kernel"`, to NumPy arrays, and the list of the other
        layers beside the ConvMixer.

    Raises:
        ValueError: If the file is damaged or has another format, or if the
            ConvMixer has weights in layers that no ConvMixer has.
    """
    try:
        with h5py.File(file, "r") as h5:
            keras2 = keras2_group(h5)
            arrays = read_layers(keras2) if keras2 else _read_layers(h5)
    except ValueError:  # From this module, with a clear message.
        raise
    except Exception as error:  # From a damaged file: of many kinds.
        raise ValueError(
            f"it is not a Keras 3 weights file or is truncated ({error})."
        ) from error
    inside, outside = find_keras(arrays, key)
    return _name_variables(inside), outside


def read_keras(path, key=None):
    """Reads the weights in a `.keras` file from Keras 3's `save`.

    Args:
        path: Path of the file.
        key: As for `read_h5`.

    Returns:
        As for `read_h5`.

    Raises:
        ValueError: As for `read_h5`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(_H5_IN_KERAS)
    except Exception as error:  # From a damaged archive: of many kinds.
        raise ValueError(
            f"it is not a .keras file of Keras 3 or is truncated ({error})."
        ) from error
    return read_h5(io.BytesIO(content), key)


def read_configs(path):
    """Reads the configs of the layers in a `.keras` file as plain data.

    Args:
        path: Path of the file.

    Returns:
        Dictionary from names of layers to dictionaries. It is empty if the file
        has no configs or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read(_CONFIG_IN_KERAS))
        return {x["name"]: x["config"] for x in config["config"]["layers"]}
    except Exception:  # A damaged archive raises many types.
        return {}


def _read_layers(h5):
    """Reads the arrays of each layer in a Keras 3 file."""
    arrays = {}
    # A subclassed model has its layers as attributes.
    _collect(child(h5, "layers") if "layers" in h5 else h5, (), 0, arrays)
    if not arrays:
        raise ValueError("it was not written by Keras 3.")
    return arrays


def _collect(group, layer, nesting, arrays):
    """Adds the list of each layer's arrays to `arrays`, by layer path."""
    if nesting > _MAX_NESTING:
        raise ValueError("its groups are nested deeper than a ConvMixer's.")
    if "vars" in group:
        variables = child(group, "vars")
        layer = (*layer, str(variables.attrs["name"]))
        if len(variables):
            path = "/".join(layer)
            if path in arrays:
                raise ValueError(f"it has two layers `{path}`.")
            arrays[path] = [
                _read_array(child(variables, str(index)))
                for index in range(len(variables))
            ]
    for key in group:
        member = child(group, key)
        skipped = key == "vars" or (nesting == 0 and key == "optimizer")
        if not skipped and isinstance(member, h5py.Group):
            _collect(member, layer, nesting + 1, arrays)


def _read_array(dataset):
    array = read_array(dataset)
    if dataset.attrs.get("dtype") == "bfloat16":  # HDF5 has no bfloat16.
        return array.view(ml_dtypes.bfloat16)
    return array


def _name_variables(arrays):
    unknown = [layer for layer in arrays if variable_names(layer) is None]
    if unknown:
        raise ValueError(
            "it has weights in layers that no ConvMixer has: "
            f"{abbreviate(unknown)}. For a ConvMixer with additional layers, "
            "build that model and call its own `load_weights`."
        )
    weights = {}
    for layer, values in arrays.items():
        names = variable_names(layer)
        if layer == "predictions" and len(values) > len(names):
            values = _dequantized(values)
        if len(values) != len(names):
            raise ValueError(
                f"layer `{layer}` must have {len(names)} variables "
                f"({', '.join(names)}). Received: {len(values)}"
            )
        weights.update(
            (f"{layer}/{name}", value)
            for name, value in zip(names, values, strict=True)
        )
    return weights


def _dequantized(values):
    """Converts the variables of a quantized `Dense` to kernel and bias."""
    mode = _quantization_of(values)
    if mode is None:
        return values
    named = dict(zip(_QUANTIZED[mode], values, strict=False))
    try:
        kernel = dequantize(mode, named, len(named["bias"]))
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"its quantized classifier can't be read as {mode} ({error})."
        ) from error
    bias = named["bias"]
    return kernel, round_bfloat16(bias) if mode == "float8" else bias


def _quantization_of(values):
    """Returns the mode that fits the variables' number and types, or `None`."""
    first = values[0]
    if len(values) == 3 and first.dtype == np.int8 and first.ndim == 2:
        # A single 4-bit class fills half a byte.
        packed = first.shape[1] != len(values[1])
        alone = len(values[1]) == 1 and 0 <= first.min() <= first.max() < 16
        return "int4" if packed or alone else "int8"
    for mode in ("int4", "float8"):
        if len(values) == len(_QUANTIZED[mode]) and first.ndim == 2:
            return mode
    return None
