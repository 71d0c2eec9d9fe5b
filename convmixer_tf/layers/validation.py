"""Argument checks that layers and models share."""

import numbers


def check_positive_integer(name, value):
    """Raises `ValueError` unless `value` is an integer of at least 1."""
    if (
        isinstance(value, bool)
        or not isinstance(value, numbers.Integral)
        or value < 1
    ):
        raise ValueError(
            f"Argument `{name}` must be a positive integer. "
            f"Received: {name}={value!r}"
        )


def check_rate(name, value):
    """Raises `ValueError` unless `value` is a number in [0, 1)."""
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(
            f"Argument `{name}` must be a number of at least 0 and below 1. "
            f"Received: {name}={value!r}"
        )


def check_fraction(name, value):
    """Raises `ValueError` unless `value` is a number in [0, 1]."""
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(
            f"Argument `{name}` must be a number of at least 0 and at most 1. "
            f"Received: {name}={value!r}"
        )


def channels_of(input_shape, data_format):
    """Returns the number of channels of a batch of images.

    Args:
        input_shape: Tuple of four, integers or None.
        data_format: `"channels_last"` or `"channels_first"`.

    Returns:
        Integer.

    Raises:
        ValueError: If the rank is not 4 or the number of channels is unknown.
    """
    if len(input_shape) == 4:
        channels = input_shape[1 if data_format == "channels_first" else 3]
        if channels is not None:
            return channels
    raise ValueError(
        "The input must be a batch of images, of rank 4 and with a known "
        f"number of channels ({data_format}). "
        f"Received: input_shape={tuple(input_shape)}"
    )
