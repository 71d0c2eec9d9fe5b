"""Checks of arguments that several configurations share."""


def check_range(name, value, low, high, unit=""):
    """Raises ValueError unless `low <= value <= high`."""
    if not low <= value <= high:
        raise ValueError(
            f"Argument `{name}` must be from {low:g} to {high:g}"
            f"{unit and ' ' + unit}. Received: {name}={value!r}"
        )


def check_non_negative_integer(name, value):
    """Raises ValueError unless `value` is an integer of at least 0."""
    if not isinstance(value, int) or value < 0:
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
    """Raises `ValueError` unless it is `None` or part of an image's side."""
    if value is not None:
        check_range("crop_fraction", value, 0.01, 1)
