"""Ends commands with a one-line message for errors that users can fix."""

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
# The error of `data.evaluation_batches` within TensorFlow's message.
_UNREADABLE = re.compile(r"\[Unreadable image\..*?\] \[(.+)\]$", re.MULTILINE)


def run_command(module, program, arguments, guard):
    """Runs a command that uses absl flags.

    Args:
        module: The module of the command, with its docstring as the help, its
            flags and its `main`.
        program: String, the name of the command.
        arguments: List of strings, the rest of the command line.
        guard: Boolean, whether `main` needs `guarded`.
    """
    if {"-h", "--help", "-help"} & set(arguments):
        print(f"{module.__doc__.strip()}\n")
        print(flags.FLAGS.module_help(module))
        return
    main = guarded(module.main) if guard else module.main
    app.run(main, argv=[program, *arguments])


def start(argv):
    """Checks the command line and enables the log, for a command's `main`.

    Args:
        argv: Remaining arguments of the command line after the flags.

    Raises:
        app.UsageError: If there are any.
    """
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.INFO)
    # Suppress TensorFlow's log line at each checkpoint.
    logging.get_absl_logger().addFilter(
        lambda record: record.filename != "functional_saver.py"
    )


def guarded(main, *folders):
    """Ends a program with one line for errors that users can fix.

    Errors from this package explain what is wrong and how to fix it, so they
    end the program with one line. Unreadable images and Ctrl-C do the same.
    `--verbosity=1` shows the traceback. Other errors and failed assertions show
    their traceback. If `main` is silent for long, progress lines are written.

    Args:
        main: Function of the remaining arguments after the flags.
        *folders: Paths of other folders with code of this project.

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
            logging.debug("Traceback:", exc_info=True)
            sys.exit(line)

    return run


def line_of(error, ours=(_PACKAGE,)):
    """Formats an error that users can fix as one line, or returns `None`."""
    unreadable = _UNREADABLE.search(str(error))
    if unreadable:
        name = unreadable[1]
        # Several names cannot be separated, so they get no explanation.
        why = f" {why_unreadable(name)}" if os.path.lexists(name) else ""
        return (
            f"Unreadable image: {name}.{why} Repair or remove it, and run the "
            "same command again."
        )
    if isinstance(error, _OF_USERS) and _is_of(ours, error):
        return f"{type(error).__name__}: {error}"
    return None


def _is_of(folders, error):
    file = pathlib.Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return any(file.is_relative_to(folder) for folder in folders)
