"""Argument checks that several configurations share."""

import tensorflow as tf


def check_range(name, value, low, high, unit=""):
    """Raises ValueError unless `low <= value <= high`."""
    if not low <= value <= high:
        raise ValueError(
            f"Argument `{name}` must be from {low:g} to {high:g}"
            f"{unit and ' ' + unit}. Received: {name}={value!r}"
        )


def check_non_negative_integer(name, value):
    """Raises ValueError unless `value` is an integer of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(
            f"Argument `{name}` must be a non-negative integer. "
            f"Received: {name}={value!r}"
        )


def check_choice(name, value, choices):
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(
            f"Argument `{name}` must be one of "
            f"{', '.join(map(repr, choices))}. Received: {name}={value!r}"
        )


def check_crop_fraction(value):
    """Raises `ValueError` unless it is `None` or a fraction of the side."""
    if value is not None:
        check_range("crop_fraction", value, 0.01, 1)


def check_images(images, types, channels=None):
    """Checks a batch of images.

    Args:
        images: Array or tensor.
        types: Tuple of the accepted types: `"uint8"`, `"float"`.
        channels: Integer, the required number of channels; `None` for any known
            number.

    Returns:
        Tensor.

    Raises:
        ValueError: If the images have a wrong type, rank or number of channels.
    """
    images = tf.convert_to_tensor(images)
    if images.shape.rank != 4:
        raise ValueError(
            "Argument `images` must be a batch of shape (batch, height, width, "
            "channels). For a single image, pass `images[None]`. Received: "
            f"images of shape {images.shape}"
        )
    found = "float" if images.dtype.is_floating else images.dtype.name
    if found not in types:
        cast = "tf.uint8" if types[0] == "uint8" else "tf.float32"
        raise ValueError(
            f"Argument `images` must be {' or '.join(types)} pixels in [0, "
            f"255]. To convert them, use `tf.cast(images, {cast})`. Received: "
            f"images of type {images.dtype.name}"
        )
    found = images.shape[3]
    if found is None and channels is not None:
        return tf.ensure_shape(images, [None, None, None, channels])
    if found is None or channels not in (None, found):
        count = "a known number of" if channels is None else channels
        raise ValueError(
            f"Argument `images` must have {count} channels, last. Received: "
            f"images of shape {images.shape}"
        )
    return images


def check_label_rows(labels, images):
    """Checks that each image has a row of float labels.

    Args:
        labels: Array or tensor.
        images: Tensor of shape (batch, height, width, channels).

    Returns:
        Tensor.

    Raises:
        ValueError: If the labels are not floats of shape (batch, classes).
    """
    labels = tf.convert_to_tensor(labels)
    if (
        not labels.dtype.is_floating
        or labels.shape.rank != 2
        or not labels.shape[:1].is_compatible_with(images.shape[:1])
    ):
        raise ValueError(
            "Argument `labels` must be floats of shape (batch, classes), a row "
            "for each image. `smooth_labels` converts class indices. "
            f"Received: labels of type {labels.dtype.name} and shape "
            f"{labels.shape}, images of shape {images.shape}"
        )
    return labels
