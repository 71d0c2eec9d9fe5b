"""Starts a script, and ends it in one line where its user can help it."""

import pathlib
import sys
import traceback

from absl import app
from absl import logging

import convmixer_tf

_OURS = (
    pathlib.Path(convmixer_tf.__file__).parent,
    pathlib.Path(__file__).parent,
)


def run(main):
    """Runs a script's `main` with the command line's flags.

    An error that code of ours raises says itself what is wrong and how to fix
    it, so it ends the script in one line; `--verbosity=1` shows where it is
    from. One from elsewhere, or a failed assumption, comes with its traceback.

    Args:
        main: Function of what is left of the command line after the flags.
    """

    def guarded(argv):
        try:
            main(argv)
        except app.UsageError:
            raise
        except (
            ArithmeticError,
            ImportError,
            OSError,
            RuntimeError,
            ValueError,
        ) as error:
            if not _is_ours(error):
                raise
            logging.debug("From here:", exc_info=True)
            sys.exit(f"{type(error).__name__}: {error}")

    app.run(guarded)


def _is_ours(error):
    file = pathlib.Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return any(file.is_relative_to(folder) for folder in _OURS)
