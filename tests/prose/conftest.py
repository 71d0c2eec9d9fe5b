"""Imports scripts as modules, to test their flags and parts."""

import contextlib
import importlib
import pathlib

import pytest
from absl import logging  # noqa: F401  Its flags stay.

from tests.helpers import script_forgotten


@contextlib.contextmanager
def loaded(script):
    """Imports a script and forgets it and its flags afterwards."""
    with script_forgotten(script):
        yield importlib.import_module(pathlib.Path(script).stem)


@pytest.fixture(scope="session")
def load_script():
    """Returns the context manager."""
    return loaded
