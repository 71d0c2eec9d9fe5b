"""Starts a recipe, and ends it in one line where its user can help it."""

import pathlib

import quiet_import  # noqa: F401  Before TensorFlow is imported.
from absl import app

from convmixer_tf.cli.launch import guarded
from convmixer_tf.cli.launch import start

__all__ = ["run", "start"]


def run(main):
    """Runs a recipe's `main` with the command line's flags.

    Args:
        main: Function of what is left of the command line after the flags.
            Its errors end the program as `guarded` says.
    """
    app.run(guarded(main, pathlib.Path(__file__).parent))
