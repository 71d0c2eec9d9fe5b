"""Loads a weights file into a model, completely or not at all."""

import os
from typing import TYPE_CHECKING

import numpy as np

from convmixer_tf.files import PathLike
from convmixer_tf.weights.checking import describe_mismatch
from convmixer_tf.weights.effective import is_plain
from convmixer_tf.weights.names import abbreviate
from convmixer_tf.weights.names import convmixer_path
from convmixer_tf.weights.reading import read_weights

if TYPE_CHECKING:
    import keras  # Reading and writing files does not need Keras.

_STEM = "patch_embed/conv/kernel"
_CLASSIFIER = ("predictions/kernel", "predictions/bias")
_RGB = 3


def load_weights(
    model: "keras.Model",
    weights: PathLike,
    *,
    reset_classifier: bool = False,
    adapt_channels: bool = False,
    key: str | None = None,
) -> None:
    """Loads a weights file into a ConvMixer.

    Everything is read and checked before the first variable changes. If the
    model has no classifier, a classifier in the file is ignored. Other layers
    of the model, such as those before an `input_tensor`, keep their values.

    Args:
        model: Functional Keras model that contains the layers of a ConvMixer.
        weights: Path of a file that `read_weights` reads.
        reset_classifier: Whether to keep the model's classifier and ignore the
            file's, for example for other classes.
        adapt_channels: Whether to adapt a first kernel for 3 channels to the
            model's channels; see `adapt_stem`.
        key: Which ConvMixer to read if the file holds several, as for
            `read_weights`.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If the file needs PyTorch and that isn't installed.
        ValueError: If the file can't be read, if its names or shapes differ
            from the model's, or if the model is quantized or has LoRA. The
            model is then unchanged.

    Example:

    ```python
    load_weights(model, "convmixer_768_32.safetensors")
    ```
    """
    values = read_weights(weights, key=key)
    assign_weights(model, values, weights, reset_classifier, adapt_channels)


def assign_weights(
    model, values, source, reset_classifier=False, adapt_channels=False
):
    """Sets the variables of a ConvMixer to the values of a file.

    Args:
        model: As for `load_weights`.
        values: Dictionary from `read_weights`. It is modified.
        source: Path of the file, for messages.
        reset_classifier: As for `load_weights`.
        adapt_channels: As for `load_weights`.

    Raises:
        ValueError: As for `load_weights`.
    """
    variables = convmixer_variables(model)
    shapes = {path: tuple(v.shape) for path, v in variables.items()}
    if reset_classifier or _CLASSIFIER[0] not in shapes:
        for path in _CLASSIFIER:
            values.pop(path, None)
    if reset_classifier:
        shapes = {p: s for p, s in shapes.items() if p not in _CLASSIFIER}
    _check_plain(model, shapes)
    if adapt_channels and _STEM in values and _STEM in shapes:
        values[_STEM] = adapt_stem(values[_STEM], shapes[_STEM][2])
    mismatch = describe_mismatch(values, shapes)
    if mismatch:
        raise ValueError(
            f"The weights in `{os.fspath(source)}` do not fit the model "
            f"`{model.name}`. {mismatch}{_advice(values, shapes)}"
        )
    values = {
        path: _cast(values[path], variables[path].dtype, path, source)
        for path in shapes
    }
    for path, value in values.items():
        variables[path].assign(value)


def convmixer_variables(model):
    """Finds the variables of a ConvMixer in a model.

    Args:
        model: Functional Keras model that contains the layers of a ConvMixer.

    Returns:
        Dictionary from paths, such as `"block_0/depthwise/kernel"`, to
        `keras.Variable` objects.

    Raises:
        ValueError: If the model has no ConvMixer, or more than one.
    """
    variables = {}
    for variable in model.weights:
        path = convmixer_path(variable.path)
        if path in variables:
            raise ValueError(
                "Argument `model` must have the layers of one ConvMixer; pass "
                "the ConvMixer itself where it is one layer of another model. "
                f"Received: model={model}, with `{variables[path].path}` and "
                f"`{variable.path}`"
            )
        if path:
            variables[path] = variable
    if not variables:
        raise ValueError(
            "Argument `model` must be a functional model with the layers of "
            f"a ConvMixer. Received: model={model}"
        )
    return variables


def kernel_layers(model):
    """Finds the layers that hold the kernels of a ConvMixer.

    Args:
        model: Functional Keras model that contains the layers of a ConvMixer.

    Returns:
        Dictionary from paths, such as `"block_0/depthwise/kernel"`, to Keras
        layers.

    Raises:
        ValueError: As for `convmixer_variables`.
    """
    layers = _innermost(model, set())
    owners = {id(v): layer for layer in layers for v in layer.variables}
    return {
        path: owners[id(variable)]
        for path, variable in convmixer_variables(model).items()
        if path.endswith("/kernel") and id(variable) in owners
    }


def _innermost(layer, seen):
    """Yields the layers within a layer that hold no other layers."""
    import keras  # Imported here because reading files does not need it.

    if id(layer) in seen:
        return
    seen.add(id(layer))
    children = []
    for value in vars(layer).values():
        if isinstance(value, dict):
            value = value.values()
        elif not isinstance(value, list | tuple):
            value = [value]
        children += [x for x in value if isinstance(x, keras.Layer)]
    if not children:
        yield layer
    for child in children:
        yield from _innermost(child, seen)


def _check_plain(model, paths):
    """Checks that the layers to set are not quantized and have no LoRA."""
    changed = [
        path.removesuffix("/kernel")
        for path, layer in kernel_layers(model).items()
        if path in paths and not is_plain(layer)
    ]
    if changed:
        raise ValueError(
            f"Layers of the model `{model.name}` are quantized or have LoRA: "
            f"{abbreviate(changed)}. Load the weights before calling "
            "`quantize` or `enable_lora`."
        )


def adapt_stem(kernel, channels):
    """Adapts a kernel for 3 input channels to another number, like timm.

    Args:
        kernel: Array of shape (height, width, 3, dim). A kernel for another
            number of channels is returned unchanged.
        channels: Channels of the model's input. For 1 channel, the kernel is
            summed over its channels. Otherwise its channels are repeated and
            scaled by `3 / channels`.

    Returns:
        Array of shape (height, width, channels, dim).
    """
    if kernel.shape[2] != _RGB or channels == _RGB:
        return kernel
    single = kernel.astype("float32")
    if channels == 1:
        adapted = single.sum(axis=2, keepdims=True)
    else:
        repeated = single[:, :, np.arange(channels) % _RGB]
        adapted = repeated * np.float32(_RGB / channels)
    return adapted.astype(kernel.dtype)


def _advice(values, shapes):
    """Names the arguments that would make the weights fit."""
    advice = ""
    wrong = {
        path
        for path in {*values, *shapes} - {_STEM}
        if path not in shapes
        or path not in values
        or values[path].shape != shapes[path]
    }
    if wrong and wrong <= set(_CLASSIFIER):
        bias = _CLASSIFIER[1]
        if bias in wrong and bias in values and bias in shapes:
            advice += (
                f" To use the file's classifier: classes={len(values[bias])}."
            )
        advice += " To keep the model's classifier: reset_classifier=True."
    if _STEM in values and _STEM in shapes:
        advice += _advice_on_channels(values[_STEM].shape[2], shapes[_STEM][2])
    return advice


def _advice_on_channels(file, model):
    if file == model:
        return ""
    if file == _RGB:
        return " To adapt the input channels: adapt_channels=True."
    # timm has no rule for this case either.
    return (
        f" Only weights for {_RGB} channels can be adapted, not for {file}. "
        f"Build the model with an `input_shape` of {file} channels, and pass "
        "such images."
    )


def _cast(value, dtype, path, source):
    with np.errstate(over="ignore"):
        value = value.astype(np.dtype(dtype))
    if not np.isfinite(value).all():
        raise ValueError(
            f"Weights in `{os.fspath(source)}` are too large for the model's "
            f"{dtype} variables: {abbreviate([path])}."
        )
    return value
