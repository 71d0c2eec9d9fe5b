"""Pixel ranges of models of other architectures."""

import re

import keras
import numpy as np

from convmixer_tf.export.preparation import check_image_model

_NAME = "pixel_range"
_NUMBER = r"-?\d+(?:\.\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})")
_STATISTICS = re.compile(
    rf"({_NUMBER}(?:,{_NUMBER})*)/({_NUMBER}(?:,{_NUMBER})*)"
)


def with_pixel_range(model: keras.Model, pixel_range: str) -> keras.Model:
    """Adds pixel scaling to a classifier of any architecture.

    The result takes pixels in [0, 255], like all models of this package.
    `export_tflite` converts it unchanged. `verify` and `publish` compare it
    with the exported file.

    Args:
        model: A `keras.Model` from channels-last images to class scores, such
            as one of `keras.applications`. It is not changed.
        pixel_range: The pixels that the model takes. `"0..255"`, `"0..1"` and
            `"-1..1"` are the values of black and white. `"MEAN/STD"`, such as
            `"123.675,116.28,103.53/58.395,57.12,57.375"`, means pixels in [0,
            255] minus the mean, divided by the standard deviation. Each is one
            number, or one for each channel.

    Returns:
        A functional `keras.Model` of the same name around `model`.

    Raises:
        ValueError: If `model` or `pixel_range` is invalid.

    Example:

    ```python
    model = keras.applications.MobileNetV2(weights="imagenet")
    model = with_pixel_range(model, "-1..1")
    export_tflite(model, "model.tflite", class_names=names)
    ```
    """
    check_image_model(model)
    channels = model.input_shape[-1]
    scale, offset = _affine(pixel_range, channels)
    image = keras.Input(model.input_shape[1:], name="image")
    scaled = keras.layers.Rescaling(scale, offset, name=_NAME)(image)
    return keras.Model(image, model(scaled), name=model.name)


def has_pixel_range(model: keras.Model) -> bool:
    """Returns whether a model was created by `with_pixel_range`."""
    return any(layer.name == _NAME for layer in model.layers)


def _affine(pixel_range, channels):
    """Returns the scale and the offset for pixels in [0, 255]."""
    text = str(pixel_range).replace(" ", "")
    if found := _RANGE.fullmatch(text):
        low, high = map(float, found.groups())
        if low < high:
            return (high - low) / 255, low
    if found := _STATISTICS.fullmatch(text):
        mean, std = (
            np.array(numbers.split(","), np.float64)
            for numbers in found.groups()
        )
        fits = {mean.size, std.size} <= {1, channels}
        if fits and (std > 0).all() and (std < 256).all():
            mean, std = np.broadcast_arrays(mean, std)
            return (1 / std).tolist(), (-mean / std).tolist()
    raise ValueError(
        "Argument `pixel_range` must be the values of black and white, "
        'such as "0..255", "0..1" or "-1..1", or MEAN/STD in [0, 255], each '
        f"one number or one for each of the model's {channels} channels. "
        f"Received: pixel_range={pixel_range!r}"
    )
