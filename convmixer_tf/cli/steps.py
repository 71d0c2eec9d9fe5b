"""A progress bar with a known list of steps."""

import contextlib
import shutil
import sys
import threading
import time

from convmixer_tf import progress

_WIDTH = 20
_SECONDS = 0.5  # Between two updates.


class Steps:
    """Shows the current step, the number of steps and the elapsed time.

    The bar counts only finished steps. On a terminal, it is one line that is
    updated. Elsewhere, each step is a line, and there is a progress line after
    a long silence.

    Args:
        names: List of strings, the steps in order.
        file: File to write to. Defaults to stderr.
    """

    def __init__(self, names, file=None):
        self._names = list(names)
        self._file = file or sys.stderr
        self._done = 0
        self._start = time.monotonic()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def shown(self):
        """Shows the bar during the steps."""
        if not self._file.isatty():
            with progress.told(self._say):
                yield
            return
        over = threading.Event()
        thread = threading.Thread(target=self._draw, args=[over], daemon=True)
        thread.start()
        try:
            with progress.drawn():
                yield
        finally:
            over.set()
            thread.join()

    @contextlib.contextmanager
    def step(self):
        """Runs the next step."""
        name = self._names[self._done]
        progress.note("%s", name)
        if not self._file.isatty():
            self._say(f"{self._done + 1} of {len(self._names)}: {name}")
        yield
        self._done += 1

    def line(self):
        """Returns the bar as a line of text."""
        count = len(self._names)
        full = _WIDTH * self._done // count
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        name = self._names[min(self._done, count - 1)]
        noted = progress.noted()
        doing = "" if noted == name else f": {noted}"
        return (
            f"[{'#' * full}{'.' * (_WIDTH - full)}] {self._done} of {count} "
            f"done, {minutes}:{seconds:02d}  {name}{doing}"
        )

    def _draw(self, over):
        while not over.wait(_SECONDS):
            self._write()
        self._write()
        print(file=self._file, flush=True)

    def _write(self):
        width = shutil.get_terminal_size().columns - 1
        print(
            f"\r{self.line()[:width]:{width}}",
            end="",
            file=self._file,
            flush=True,
        )

    def _say(self, line):
        print(line, file=self._file, flush=True)
        progress.touch()
