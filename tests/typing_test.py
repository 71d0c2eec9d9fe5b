"""Tests that public functions have type hints. `.ci/run` runs `mypy`."""

import dataclasses
import importlib
import inspect

import pytest

PACKAGES = (
    *("", ".analysis", ".data", ".export", ".export.qat", ".inference"),
    *(".layers", ".models", ".preprocessing", ".serve", ".training"),
    ".weights",
)


def untyped(function):
    """Lists missing type hints."""
    signature = inspect.signature(function)
    missing = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.annotation is parameter.empty and parameter.name != "self"
    ]
    if signature.return_annotation is signature.empty:
        missing.append("return")
    return missing


@pytest.mark.parametrize("package", PACKAGES)
def test_public_functions_have_type_hints(package):
    module = importlib.import_module(f"convmixer_tf{package}")
    missing, seen = {}, 0
    for name in module.__all__:
        item = getattr(module, name)
        if inspect.isclass(item) and not dataclasses.is_dataclass(item):
            item = item.__init__
        if inspect.isfunction(item):
            seen += 1
            if found := untyped(item):
                missing[name] = found
    assert seen
    assert not missing
