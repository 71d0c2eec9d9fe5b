"""What the benchmarks of TFLite files share: turns, medians, the machine."""

import json
import os
import pathlib
import platform
import statistics
import time
from importlib import metadata

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from convmixer_tf import timing
from convmixer_tf.files import replaced


def load(path):
    """Opens a TFLite file for one thread, with random inputs.

    Args:
        path: Path of a `.tflite` file.

    Returns:
        Function without arguments that runs the file once.
    """
    interpreter = Interpreter(os.fspath(path), num_threads=1)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for details in interpreter.get_input_details():
        pixels = rng.integers(0, 256, details["shape"])
        interpreter.set_tensor(
            details["index"], pixels.astype(details["dtype"])
        )
    return interpreter.invoke


def take_turns(runs, rounds):
    """Times every function `rounds` times, one after the other.

    Processor time of this process: what other processes do costs it caches
    at most, and falls on all alike.

    Args:
        runs: Dictionary from names to functions without arguments.
        rounds: Integer, how often each is timed, after one run that is not.

    Returns:
        Dictionary from names to medians, in milliseconds.
    """
    times = timing.take_turns(runs, rounds, 1, timing.CLOCKS["cpu"])
    return {name: 1e3 * statistics.median(many) for name, many in times.items()}


def machine():
    """Describes the processor and the software, for the JSON file."""
    packages = ("ai-edge-litert", "tensorflow", "keras")
    return {
        "processor": timing.cpu(),
        "cores": os.cpu_count(),
        "threads": 1,
        "clock": "processor time of the process",
        "load average": os.getloadavg(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def write(path, results):
    """Writes results and the machine as JSON, replacing the file whole.

    Args:
        path: Path of the file.
        results: What `json.dumps` takes.
    """
    content = {"machine": machine(), "results": results}
    with replaced(path) as unfinished:
        pathlib.Path(unfinished).write_text(json.dumps(content, indent=1))
