"""Times several steps fairly on a machine with other load."""

import os
import pathlib
import platform
import time

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def take_turns(steps, rounds, warmup, clock):
    """Times all steps in turn, `rounds` times.

    Args:
        steps: Dictionary from names to functions without arguments.
        rounds: Integer, the number of timed runs of each step.
        warmup: Integer, the number of runs of each step before timing.
        clock: Function that returns the time in seconds.

    Returns:
        Dictionary from names to lists of seconds.
    """
    for step in steps.values():
        for _ in range(warmup):
            step()
    seconds = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = clock()
            step()
            seconds[name].append(clock() - start)
    return seconds


def cpu(path="/proc/cpuinfo"):
    """Reads Linux's description of the first core; {} on other systems."""
    if not os.path.exists(path):
        return {}
    core = pathlib.Path(path).read_text().split("\n\n")[0]
    facts = dict(line.split(":", 1) for line in core.splitlines())
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    names = ("model name", "cpu family", "model", "cache size", "flags")
    return {name: facts[name] for name in names if name in facts}


def available_cores():
    """Counts the cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # On Linux.
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def machine():
    """Describes this machine and the date, ready for JSON."""
    driver = pathlib.Path("/proc/driver/nvidia/version")
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "gpu_driver": (
            driver.read_text().splitlines()[0] if driver.exists() else None
        ),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }
