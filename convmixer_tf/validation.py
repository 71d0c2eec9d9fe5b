"""Argument checks that all subpackages share."""

import numbers

import numpy as np

# Images are rotated as their EXIF says, or read as stored.
ORIENTATIONS = ("exif", "stored")


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


def check_orientation(value):
    """Raises `ValueError` unless `value` is `None` or in `ORIENTATIONS`."""
    if value is not None and value not in ORIENTATIONS:
        raise ValueError(
            "Argument `orientation` must be one of "
            f"{', '.join(map(repr, ORIENTATIONS))}. "
            f"Received: orientation={value!r}"
        )


def plain(value):
    """Converts a NumPy number or 0-D array to a Python number."""
    is_numpys = isinstance(value, np.generic | np.ndarray)
    return value.item() if is_numpys and value.ndim == 0 else value
