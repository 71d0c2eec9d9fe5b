"""Imports recipes as modules, to test their parts."""

import importlib
import pathlib
import subprocess
import sys

import pytest
from absl import logging  # noqa: F401  Its flags stay.

from tests.helpers import script_forgotten
from tests.helpers import write_images

RECIPES = pathlib.Path(__file__).parents[2] / "recipes"
CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of 24 training and 9 test images of 32 pixels."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "train", CLASSES, 8, 32)
    write_images(folder / "test", CLASSES, 3, 32)
    return folder


@pytest.fixture
def load_recipe():
    """Imports a recipe and forgets it and its flags after the test."""
    with script_forgotten("recipes/launch.py"):
        yield importlib.import_module


@pytest.fixture
def run_recipe():
    """Runs a recipe; returns exit code, stdout and log."""

    def run(recipe, *arguments):
        result = subprocess.run(
            [sys.executable, RECIPES / recipe, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=900,
        )
        return result.returncode, result.stdout, result.stderr

    return run
