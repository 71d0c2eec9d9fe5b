"""Converts weights files between frameworks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import keras

from convmixer_tf.files import PathLike
from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced
from convmixer_tf.models.convmixer import ConvMixer
from convmixer_tf.weights import read_weights
from convmixer_tf.weights.checking import infer_architecture
from convmixer_tf.weights.loading import assign_weights
from convmixer_tf.weights.names import to_timm
from convmixer_tf.weights.saving import write_safetensors

if TYPE_CHECKING:
    from convmixer_tf.weights.checking import Architecture


def convert_weights(
    source: PathLike,
    destination: PathLike,
    *,
    overwrite: bool = False,
    key: str | None = None,
) -> Architecture:
    """Converts a ConvMixer weights file for Keras or for timm.

    The architecture is inferred from the shapes. A `.weights.h5` file is
    written in float32, a `.safetensors` file in the precision of `source`.
    Float32 weights are copied exactly. PyTorch is needed only to read PyTorch
    files.

    Args:
        source: Path of a Keras 3, safetensors or PyTorch file, as for
            `weights.read_weights`. A quantized classifier is dequantized.
        destination: Path of the file to write. `.weights.h5` is for
            `load_weights` of the same ConvMixer, `.safetensors` is for timm.
        overwrite: Whether to replace an existing file.
        key: Which ConvMixer to read if the source holds several, as for
            `weights.read_weights`.

    Returns:
        The `weights.Architecture` of the model.

    Raises:
        FileExistsError: If `destination` exists and `overwrite` is `False`.
        FileNotFoundError: If `source` or the directory of `destination`
            doesn't exist.
        ImportError: If `source` needs PyTorch and that isn't installed.
        ValueError: If `source` can't be read or isn't one whole ConvMixer, or
            `destination` has another suffix. Nothing is written then.

    Example:

    ```python
    convert_weights("convmixer_768_32.pth.tar", "convmixer_768_32.weights.h5")
    ```
    """
    check_destination(destination, (".weights.h5", ".safetensors"), overwrite)
    weights = read_weights(source, key=key)
    try:
        architecture = infer_architecture(weights)
    except ValueError as error:
        raise ValueError(
            f"Cannot convert `{os.fspath(source)}`: {error}"
        ) from None
    if os.fspath(destination).endswith(".safetensors"):
        write_safetensors(to_timm(weights), destination)
    else:
        model = _build(architecture, weights, source)
        with replaced(destination) as unfinished:
            model.save_weights(unfinished)
    return architecture


def _build(architecture, weights, source):
    """Builds the model in float32, whatever the user's dtype policy is."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        return _convmixer(architecture, weights, source)
    finally:
        keras.config.set_dtype_policy(policy)


def _convmixer(architecture, weights, source):
    shape = (None, None, architecture.channels)
    if keras.config.image_data_format() == "channels_first":
        shape = (architecture.channels, None, None)
    model = ConvMixer(
        architecture.dim,
        architecture.depth,
        architecture.kernel_size,
        architecture.patch_size,
        include_top=architecture.classes is not None,
        classes=architecture.classes,
        input_shape=shape,
    )
    assign_weights(model, weights, source)  # Weights fit any activation.
    return model
