"""Starts a script, and ends it in one line where its user can help it."""

import os
import pathlib
import re
import sys
import traceback

import quiet_import  # noqa: F401  Before TensorFlow is imported.
from absl import app
from absl import flags
from absl import logging

import convmixer_tf
from convmixer_tf import progress
from convmixer_tf.data.unreadable import why_unreadable

_OURS = (
    pathlib.Path(convmixer_tf.__file__).parent,
    pathlib.Path(__file__).parent,
)
_OF_USERS = (ArithmeticError, ImportError, OSError, RuntimeError, ValueError)
# How `data.evaluation_batches` fails, in the middle of TensorFlow's words.
_UNREADABLE = re.compile(r"\[Unreadable image\..*?\] \[(.+)\]$", re.MULTILINE)


def run(main):
    """Runs a script's `main` with the command line's flags.

    An error that code of ours raises says itself what is wrong and how to fix
    it, so it ends the script in one line, and so do an image that can't be
    read and Ctrl-C; `--verbosity=1` shows where an error is from. One from
    elsewhere, or a failed assumption, comes with its traceback. Where `main`
    says nothing for long, a line says what it is at.

    Args:
        main: Function of what is left of the command line after the flags.
    """

    def guarded(argv):
        try:
            with progress.told():
                main(argv)
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            line = _line(error)
            if line is None:
                raise
            logging.debug("From here:", exc_info=True)
            sys.exit(line)

    app.run(guarded)


def start(argv):
    """Checks the command line and turns the log on, for a recipe's `main`.

    Args:
        argv: What is left of the command line after the flags.

    Raises:
        app.UsageError: If that is anything.
    """
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.INFO)
    # How long TensorFlow took to name the one part of each checkpoint.
    logging.get_absl_logger().addFilter(
        lambda record: record.filename != "functional_saver.py"
    )


def _line(error):
    """Writes an error that its user can help as one line, or gives `None`."""
    unreadable = _UNREADABLE.search(str(error))
    if unreadable:
        name = unreadable[1]
        # Of several, whose names only spaces divide, nothing more is said.
        why = f" {why_unreadable(name)}" if os.path.lexists(name) else ""
        return (
            f"Unreadable image: {name}.{why} Repair or remove it, and give "
            "the same command again."
        )
    if isinstance(error, _OF_USERS) and _is_ours(error):
        return f"{type(error).__name__}: {error}"
    return None


def _is_ours(error):
    file = pathlib.Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return any(file.is_relative_to(folder) for folder in _OURS)
