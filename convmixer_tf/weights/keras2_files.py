"""Reads the weights of keras-cv's ConvMixer from Keras 2 files.

Keras 2 writes one HDF5 group for each layer. The attribute `layer_names` of
the file lists the layers in the order of the model, and the attribute
`weight_names` of a group lists its arrays. keras-cv does not name its layers,
so their names depend on what the process built before (`conv2d_3`). Only their
order identifies them.
"""

import numpy as np

from convmixer_tf.weights.hdf5 import child
from convmixer_tf.weights.hdf5 import read_array
from convmixer_tf.weights.names import abbreviate

# The file does not hold the epsilon of the batch normalizations. keras-cv
# uses Keras' default; this package uses PyTorch's (`layers.conv_act_norm`).
KERAS_EPSILON = 1e-3
EPSILON = 1e-5

_CONV = ("kernel", "bias")
_DEPTHWISE = ("depthwise_kernel", "bias")
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def keras2_group(h5):
    """Returns the group that holds the layers, or `None` for other files.

    Args:
        h5: An `h5py.File`. `save_weights` writes the layers into the file
            itself, and `save` into the group `model_weights`.
    """
    if "model_weights" in h5:
        h5 = child(h5, "model_weights")
    return h5 if "layer_names" in h5.attrs else None


def read_layers(group):
    """Reads the layers of keras-cv's ConvMixer.

    Args:
        group: Group from `keras2_group`.

    Returns:
        Dictionary from layer paths of `ConvMixer`, such as
        `"block_0/depthwise"`, to lists of arrays in Keras 3's order. The
        variances are adjusted so that this package's batch normalizations
        compute the same as keras-cv's.

    Raises:
        ValueError: If the layers are not those of keras-cv's ConvMixer.
    """
    layers = []
    for name in _strings(group, "layer_names"):
        layer = _descend(group, name)
        weights = _strings(layer, "weight_names")
        if weights:
            layers.append((name, weights, layer))
    expected = _expected(len(layers))
    found = [tuple(map(_kind, weights)) for _, weights, _ in layers]
    for (name, _, _), kinds, (path, ours) in zip(
        layers, found, expected.items(), strict=False
    ):
        if kinds != ours:
            raise _unlike(
                f"layer `{name}` has the weights {abbreviate(kinds)}, where "
                f"`{path}` has {abbreviate(ours)}"
            )
    if len(layers) != len(expected):
        raise _unlike(f"it has {len(layers)} layers with weights")
    return {
        path: _move_epsilon([read_array(_descend(layer, x)) for x in weights])
        for path, (_, weights, layer) in zip(expected, layers, strict=True)
    }


def _expected(count):
    """Lists the layers of a ConvMixer with about `count` weighted layers."""
    layers = {"patch_embed/conv": _CONV, "patch_embed/norm": _NORM}
    for i in range((count - 2) // 4):
        layers[f"block_{i}/depthwise"] = _DEPTHWISE
        layers[f"block_{i}/depthwise_norm"] = _NORM
        layers[f"block_{i}/pointwise"] = _CONV
        layers[f"block_{i}/pointwise_norm"] = _NORM
    if count > len(layers):
        layers["predictions"] = _CONV
    return layers


def _unlike(reason):
    return ValueError(
        "it was written by Keras 2. Of these files, only those of keras-cv's "
        f"ConvMixer can be read, but {reason}. Convert others to a safetensors "
        "file with timm's names."
    )


def _move_epsilon(values):
    """Adds the difference of the epsilons to a moving variance.

    A batch normalization divides by sqrt(variance + epsilon), so its output
    stays the same.
    """
    if len(values) < 4 or values[3].dtype.kind != "f":
        return values
    *others, variance = values
    moved = variance.astype("float64") + (KERAS_EPSILON - EPSILON)
    if (moved < 0).any():
        raise ValueError("it has a moving variance below zero.")
    # Half precision would round the difference away.
    return [*others, moved.astype(np.promote_types(variance.dtype, "float32"))]


def _kind(weight):
    """Turns `conv2d_3/kernel:0` into `kernel`."""
    return weight.rpartition("/")[2].partition(":")[0]


def _descend(group, path):
    for key in path.split("/"):
        group = child(group, key)
    return group


def _strings(group, attribute):
    """Reads a list of names, which h5py gives as bytes or as strings."""
    return [
        x.decode() if isinstance(x, bytes) else str(x)
        for x in group.attrs[attribute]
    ]
