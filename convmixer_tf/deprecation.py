"""Deprecated names, which still work for one release."""

import importlib
import warnings


def warn_renamed(old: str, new: str) -> None:
    """Warns the caller's caller about a renamed object.

    Args:
        old: The old name.
        new: The new name.
    """
    warnings.warn(
        f"{old} is deprecated and will be removed in release 0.3. Use {new}.",
        FutureWarning,
        stacklevel=3,
    )


def renamed(module: str, names: dict[str, str]):
    """Creates a module's `__getattr__` for renamed objects.

    Args:
        module: The module's `__name__`.
        names: Dictionary from old names to new ones, relative to the module.

    Returns:
        A function for `__getattr__ = renamed(__name__, {...})`.
    """

    def get_attribute(name):
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        place, _, new = f"{module}.{names[name]}".rpartition(".")
        warn_renamed(f"{module}.{name}", f"{place}.{new}")
        return getattr(importlib.import_module(place), new)

    return get_attribute
