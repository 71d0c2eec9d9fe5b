"""A server to be measured: started, watched and ended."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

_SERVER = pathlib.Path(__file__).with_name("server.py")
_SECONDS_TO_START = 300
_TICKS = os.sysconf("SC_CLK_TCK")


class ServerProcess:
    """Runs `server.py` in a process of its own; a context manager.

    Args:
        arguments: Flags of the server's, a list of strings.
        core: Number of the core it is bound to, or `None`.

    Attributes:
        url: Where it listens.
        port: Integer.

    Raises:
        OSError: If it ends before it serves; with its last line.
    """

    def __init__(self, arguments, core=None):
        self._core = core
        self._command = [sys.executable, _SERVER, "--port=0", *arguments]
        self._lines = []

    def __enter__(self):
        # TensorFlow's threads begin later, and stay where this one is.
        before = os.sched_getaffinity(0)
        if self._core is not None:
            os.sched_setaffinity(0, {self._core})
        try:
            self._process = subprocess.Popen(
                self._command, stderr=subprocess.PIPE, text=True
            )
        finally:
            os.sched_setaffinity(0, before)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self._wait_for(r"Serving at (http://\S+)")
        self.port = int(self.url.rpartition(":")[2])
        return self

    def __exit__(self, *error):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        self._process.stderr.close()

    def _read(self):
        # All of it: a pipe that is full would stop the server.
        for line in self._process.stderr:
            self._lines.append(line)

    def _wait_for(self, pattern):
        end = time.monotonic() + _SECONDS_TO_START
        while time.monotonic() < end:
            found = re.search(pattern, self.log())
            if found:
                return found[1]
            if self._process.poll() is not None:
                self._reader.join()
                last = self.log().strip().rpartition("\n")[2]
                raise OSError(f"The server has ended. {last}")
            time.sleep(0.1)
        self._process.kill()
        raise OSError(f"The server was not up after {_SECONDS_TO_START} s.")

    def log(self):
        """Returns what it has written."""
        return "".join(self._lines)

    def memory(self):
        """Returns the memory it holds now and held at most, in megabytes."""
        status = pathlib.Path(f"/proc/{self._process.pid}/status").read_text()
        kilobytes = dict(
            re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", status, re.M)
        )
        return tuple(int(kilobytes[name]) / 1e3 for name in ("VmRSS", "VmHWM"))

    def seconds_of_processor(self):
        """Returns the processor time it has had."""
        user, system = self._proc("stat").rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / _TICKS

    def _proc(self, name):
        return pathlib.Path(f"/proc/{self._process.pid}/{name}").read_text()

    def stop(self):
        """Ends it with SIGTERM.

        Returns:
            Its exit status, and the seconds that it took.
        """
        start = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(timeout=60)
        return status, time.monotonic() - start
