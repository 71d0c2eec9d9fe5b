"""Starts a recipe and reports errors that users can fix in one line."""

import pathlib

import quiet_import  # noqa: F401  Before TensorFlow is imported.
from absl import app

from convmixer_tf.cli.launch import guarded
from convmixer_tf.cli.launch import start

__all__ = ["run", "start"]


def run(main):
    """Runs a recipe's `main` with the command line's flags.

    Args:
        main: Function of the remaining arguments after the flags. Its errors
            are handled by `guarded`.
    """
    app.run(guarded(main, pathlib.Path(__file__).parent))
