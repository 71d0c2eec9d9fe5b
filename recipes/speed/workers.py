"""Processes that time contestants, and what they are asked.

Each framework has a process of its own, so that none takes the other's memory
or threads, and so that the run survives whatever happens in it.
"""

import contextlib
import dataclasses
import gc
import importlib
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import traceback
from multiprocessing.connection import Connection
from multiprocessing.connection import Pipe

# As in `convmixer_tf.timing`, which would bring Keras into PyTorch's process.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
STEPS = {"keras": "speed.keras_steps", "torch": "speed.timm_steps"}
NOT_FINITE = "gives values that are not finite"
OUT_OF_MEMORY = "out of memory"
_START = 300  # seconds in which imports must be done
_KERAS_SAYS = re.compile("Exception encountered when calling")
_CEILING_ROUNDS = 7
_CEILING_SECONDS = 0.1  # how long a round takes at least


class ContestantError(RuntimeError):
    """A contestant can't do what it was asked; the message says why."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to time.

    Attributes:
        device: `"cpu"` or `"gpu"`.
        threads: Integer, or `None` for the framework's own choice.
        clock: `"wall"`, or `"cpu"` for the time of the process.
        warmup: Integer, untimed steps before.
        round_seconds: Float, how long a timed round takes at least. Steps of
            one round follow each other without waiting.
        tf32: Boolean, whether a GPU may multiply float32 in TensorFloat-32.
    """

    device: str
    threads: int | None = None
    clock: str = "wall"
    warmup: int = 2
    round_seconds: float = 0.0
    tf32: bool = True


class Worker:
    """A process that times the contestants of one framework.

    Args:
        framework: `"keras"` or `"torch"`.
        settings: A `Settings`.
        seconds: Float, how long that may take.

    Raises:
        ContestantError: If the framework can't be imported, or is on another
            device.
    """

    def __init__(self, framework, settings, seconds=_START):
        self._connection, other = Pipe()
        code = "from speed.workers import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, str(other.fileno())],
            env=_environment(settings),
            pass_fds=[other.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,  # What frameworks print is not the benchmark's.
        )
        other.close()
        self.description = self.ask(
            seconds, "start", STEPS[framework], settings
        )

    def ask(self, seconds, *message):
        """Sends a message and waits for the answer.

        Args:
            seconds: Float, how long to wait.
            *message: Name of a method of `Timer`, and its arguments.

        Returns:
            What the method returns.

        Raises:
            ContestantError: If it fails, or if there is no answer. The process
                ends.
        """
        try:
            self._connection.send(message)
            if not self._connection.poll(seconds):
                raise ContestantError(f"no answer within {seconds:.0f} s")
            succeeded, answer = self._connection.recv()
            if not succeeded:
                raise ContestantError(answer)
        except (EOFError, OSError) as error:
            status = self._process.wait()
            raise ContestantError(
                f"its process ended with status {status}"
            ) from error
        except ContestantError:
            self.close()
            raise
        return answer

    @property
    def ended(self):
        """Whether the process has ended, by itself or otherwise."""
        return self._process.poll() is not None

    def close(self):
        """Ends the process."""
        self._connection.close()
        self._process.kill()
        self._process.wait()


class Workers(contextlib.AbstractContextManager):
    """The processes of a run, which start when they are needed.

    Args:
        settings: A `Settings`.
        together: Boolean, whether each contestant has a process of its own,
            to take turns with the others. If not, there is one at a time: it
            has all the memory.
        deadline: `time.monotonic()` by which one must have started.
    """

    def __init__(self, settings, together, deadline=math.inf):
        self.settings = settings
        self._deadline = deadline
        self._together = together
        self._workers = {}

    def get(self, name, framework):
        """Gives the process of a contestant.

        Args:
            name: The contestant's name.
            framework: `"keras"` or `"torch"`.

        Returns:
            A `Worker`.

        Raises:
            ContestantError: As `Worker`.
        """
        key = name if self._together else framework
        worker = self._workers.get(key)
        if worker is None or worker.ended:
            if not self._together:
                self.close()
            left = max(0.0, self._deadline - time.monotonic())
            seconds = min(_START, left)
            self._workers[key] = Worker(framework, self.settings, seconds)
        return self._workers[key]

    def close(self):
        """Ends all processes."""
        for worker in self._workers.values():
            worker.close()
        self._workers = {}

    def __exit__(self, *exception):
        self.close()


def _environment(settings):
    """Sets what frameworks read before anything can be said to them."""
    folder = pathlib.Path(__file__).parents[1]
    path = [str(folder), os.environ.get("PYTHONPATH")]
    environment = {
        # On a GPU: not three quarters of the memory at once, but nearly all
        # of it if need be.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
    }
    if settings.device == "cpu":
        environment |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    if settings.threads:
        # NPROC is what XLA takes for the number of cores.
        threads = str(settings.threads)
        environment |= {"OMP_NUM_THREADS": threads, "NPROC": threads}
    return environment


def serve():
    """Answers what `Worker.ask` asks, until the other side goes away."""
    # Ctrl-C is for the other side, which then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    timer, connection = Timer(), Connection(int(sys.argv[1]))
    while True:
        try:
            method, *arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = True, getattr(timer, method)(*arguments)
        except Exception as error:
            traceback.print_exc()
            answer = False, explain(error)
        connection.send(answer)


class Timer:
    """Times steps, in the process of a framework."""

    def start(self, module, settings):
        """Imports the framework.

        Args:
            module: Name of the module that builds its steps.
            settings: A `Settings`.

        Returns:
            Dictionary that describes it.
        """
        self._settings = settings
        self._clock = CLOCKS[settings.clock]
        self._steps = importlib.import_module(module)
        self._steps.set_up(settings.threads, settings.tf32)
        facts = self._steps.describe()
        if facts["kind"] != settings.device:
            raise ContestantError(
                f"the device must be a {settings.device}. Received: "
                f"{facts['device']}, a {facts['kind']}"
            )
        return facts

    def prepare(self, *arguments):
        """Builds a step, runs it once and warms it up.

        Args:
            *arguments: What the framework's `build_step` takes.

        Returns:
            Seconds of the first step, compilation and all.
        """
        self._run = None
        gc.collect()
        self._steps.free_memory()
        start = time.perf_counter()
        self._run = self._steps.build_step(*arguments)
        output = self._run(1)
        first = time.perf_counter() - start
        if not math.isfinite(self._steps.to_numpy(output).sum()):
            raise ContestantError(NOT_FINITE)
        self._warm_up(self._settings.warmup, self._settings.round_seconds)
        return first

    def _warm_up(self, steps, round_seconds):
        self._run(steps)
        self._repeats = 1
        if round_seconds:
            start = time.perf_counter()
            self._run(1)
            seconds = time.perf_counter() - start
            self._repeats = max(1, math.ceil(round_seconds / seconds))
            self._run(self._repeats)

    def time_round(self):
        """Times a round, after a step that fills caches and wakes threads.

        Returns:
            Seconds a step.
        """
        self._run(1)
        start = self._clock()
        self._run(self._repeats)
        return (self._clock() - start) / self._repeats

    def ceiling(self, *arguments):
        """Times what measures a limit of the device.

        Args:
            *arguments: What the framework's `build_ceiling` takes.

        Returns:
            List of seconds.
        """
        self._run = self._steps.build_ceiling(*arguments)
        self._warm_up(3, _CEILING_SECONDS)
        return [self.time_round() for _ in range(_CEILING_ROUNDS)]


def explain(error):
    """Says in one line why a step failed."""
    name, text = type(error).__name__, str(error)
    signs = ("RESOURCE_EXHAUSTED", "out of memory", "OOM when allocating")
    if isinstance(error, MemoryError) or any(sign in text for sign in signs):
        return OUT_OF_MEMORY
    if name in ("OutOfMemoryError", "ResourceExhaustedError"):
        return OUT_OF_MEMORY
    if isinstance(error, ContestantError):
        return text
    lines = re.sub(r"\x1b\[\d*m", "", text).splitlines()  # Without bold.
    telling = [x for x in lines if x.strip() and not _KERAS_SAYS.match(x)]
    return f"{name}: {telling[0] if telling else ''}"
