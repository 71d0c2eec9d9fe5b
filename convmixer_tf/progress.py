"""A line now and then from a command that says nothing else for long."""

import contextlib
import sys
import threading
import time

# The first line of a silence, and the most there may be between two.
FIRST, MOST = 10.0, 60.0  # seconds

_doing = ("working",)
_said = time.monotonic()
_is_drawn = False


def note(text, *arguments):
    """Notes what is being done, for the next line if one is due.

    Args:
        text: String, with `%` for `arguments`.
        *arguments: What to put there, once the line is written.
    """
    global _doing
    _doing = (text, *arguments)


def noted():
    """Returns what is being done, as a line."""
    text, *arguments = _doing
    return text % tuple(arguments)


def touch():
    """Notes that a line of another kind has just been written."""
    global _said
    _said = time.monotonic()


@contextlib.contextmanager
def drawn():
    """Marks that a bar is drawn on the terminal, which has one line for it."""
    global _is_drawn
    _is_drawn = True
    try:
        yield
    finally:
        _is_drawn = False


def is_drawn():
    """Whether a bar is drawn, so that no other is to be."""
    return _is_drawn


@contextlib.contextmanager
def told(say=None):
    """Tells what is being done, each time nothing was said for long.

    Args:
        say: Function of a line. Defaults to writing to the standard error.
    """
    start = time.monotonic()
    touch()
    done = threading.Event()
    arguments = (done, start, say or _write)
    thread = threading.Thread(target=_tell, args=arguments, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _write(line):
    print(line, file=sys.stderr, flush=True)


def _tell(done, start, say):
    seen, silence = _said, FIRST
    while not done.wait(max(_said + silence - time.monotonic(), 0.01)):
        now = time.monotonic()
        if _said != seen:  # Something else was written.
            seen, silence = _said, FIRST
        if now < _said + silence:
            continue
        say(f"{now - start:.0f} s: {noted()}")
        touch()
        seen, silence = _said, min(2 * silence, MOST)
