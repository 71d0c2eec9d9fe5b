"""Periodic progress lines for commands that are otherwise silent."""

import contextlib
import sys
import threading
import time

# Time until the first line, and the longest time between two lines.
FIRST, MOST = 10.0, 60.0  # seconds

_doing = ("working",)
_said = time.monotonic()
_is_drawn = False


def note(text, *arguments):
    """Sets the text of the next progress line.

    Args:
        text: String, with `%` for `arguments`.
        *arguments: Values for `text`, formatted when the line is written.
    """
    global _doing
    _doing = (text, *arguments)


def noted():
    """Returns the current progress text."""
    text, *arguments = _doing
    return text % tuple(arguments)


def touch():
    """Restarts the timer because another line was written."""
    global _said
    _said = time.monotonic()


@contextlib.contextmanager
def drawn():
    """Marks that a progress bar occupies the terminal's line."""
    global _is_drawn
    _is_drawn = True
    try:
        yield
    finally:
        _is_drawn = False


def is_drawn():
    """Returns whether a progress bar is drawn."""
    return _is_drawn


@contextlib.contextmanager
def told(say=None):
    """Writes a progress line whenever there was no output for some time.

    Args:
        say: Function of a line. Defaults to writing to stderr.
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
