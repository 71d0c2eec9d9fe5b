"""Ends a command in one line where its user can help it."""

import os
import pathlib
import re
import sys
import traceback

from absl import app
from absl import flags
from absl import logging

import convmixer_tf
from convmixer_tf import progress
from convmixer_tf.data.unreadable import why_unreadable

_PACKAGE = pathlib.Path(convmixer_tf.__file__).parent
_OF_USERS = (ArithmeticError, ImportError, OSError, RuntimeError, ValueError)
# How `data.evaluation_batches` fails, in the middle of TensorFlow's words.
_UNREADABLE = re.compile(r"\[Unreadable image\..*?\] \[(.+)\]$", re.MULTILINE)


def run_command(module, program, arguments, guard):
    """Runs a command whose flags are those of absl.

    Args:
        module: The module: its docstring is the help, its flags are the
            flags, its `main` runs.
        program: String, what the command is called.
        arguments: List of strings, the command line after that.
        guard: Boolean, whether `main` needs `guarded`.
    """
    if {"-h", "--help", "-help"} & set(arguments):
        print(f"{module.__doc__.strip()}\n")
        print(flags.FLAGS.module_help(module))
        return
    main = guarded(module.main) if guard else module.main
    app.run(main, argv=[program, *arguments])


def start(argv):
    """Checks the command line and turns the log on, for a command's `main`.

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


def guarded(main, *folders):
    """Lets errors that a user can help end a program in one line.

    An error that code of ours raises says itself what is wrong and how to fix
    it, so it ends the program in one line, and so do an image that can't be
    read and Ctrl-C; `--verbosity=1` shows where an error is from. One from
    elsewhere, or a failed assumption, comes with its traceback. Where `main`
    says nothing for long, a line says what it is at.

    Args:
        main: Function of what is left of the command line after the flags.
        *folders: Paths of folders of code of ours, besides this package.

    Returns:
        A function of the same argument.
    """
    ours = (_PACKAGE, *folders)

    def run(argv):
        try:
            with progress.told():
                main(argv)
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            line = line_of(error, ours)
            if line is None:
                raise
            logging.debug("From here:", exc_info=True)
            sys.exit(line)

    return run


def line_of(error, ours=(_PACKAGE,)):
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
    if isinstance(error, _OF_USERS) and _is_of(ours, error):
        return f"{type(error).__name__}: {error}"
    return None


def _is_of(folders, error):
    file = pathlib.Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return any(file.is_relative_to(folder) for folder in folders)
