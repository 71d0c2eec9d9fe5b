"""Scripts as modules, to test their flags and parts."""

import contextlib
import importlib
import sys

import pytest
from absl import flags
from absl import logging  # noqa: F401  Its flags stay.

from tests.helpers import ROOT


@contextlib.contextmanager
def loaded(script):
    """Imports a script, and forgets it and its flags afterwards."""
    path = ROOT / script
    known, modules = set(flags.FLAGS), set(sys.modules)
    sys.path.insert(0, str(path.parent))
    try:
        yield importlib.import_module(path.stem)
    finally:
        sys.path.remove(str(path.parent))
        # Other scripts define flags of the same names.
        for name in set(flags.FLAGS) - known:
            delattr(flags.FLAGS, name)
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if file.startswith((str(ROOT / "recipes"), str(ROOT / "export"))):
                del sys.modules[name]


@pytest.fixture(scope="session")
def load_script():
    """Gives the context manager."""
    return loaded
