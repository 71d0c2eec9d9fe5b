"""What a run begins with: which machine it is, and what that can do."""

import dataclasses
import json
import os
import pathlib
import platform
import statistics
import sys
import time

from convmixer_tf.timing import cpu
from speed.cases import find_contestant
from speed.workers import ContestantError

# Large enough to keep the device busy, small enough to be soon done.
MATRIX_SIDE = {"cpu": 1536, "gpu": 8192}
COPY_BYTES = {"cpu": 2**28, "gpu": 2**31}


def begin(content, plan, workers, names, dtypes):
    """Describes the machine and measures its limits.

    Args:
        content: Dictionary, what an earlier run wrote, or empty.
        plan: A `Plan`.
        workers: A `Workers`.
        names: List of contestants.
        dtypes: List of dtypes of matrix products.

    Returns:
        Dictionary, ready for JSON.

    Raises:
        ContestantError: If a framework can't be used.
        ValueError: If the earlier run was of another machine or in another
            way.
    """
    settings = dataclasses.asdict(workers.settings) | {
        "together": plan.together
    }
    content = {
        "machine": machine(),
        "commands": [],
        "settings": settings,
        "frameworks": {},
        "ceilings": {},
        "results": [],
        **content,
    }
    check_same("settings", content["settings"], settings)
    content["commands"].append(sys.argv[1:])
    first = {find_contestant(name).framework: name for name in reversed(names)}
    for framework, name in first.items():
        worker = start(workers, name, framework)
        facts = content["frameworks"].setdefault(framework, worker.description)
        check_same(framework, facts, worker.description)
        limits = content["ceilings"].setdefault(framework, {"matrix": {}})
        try:
            measure_ceilings(limits, worker, plan, dtypes)
        except ContestantError as error:
            print(f"limits, {framework}: {error}", flush=True)
        print(f"limits, {framework}: {json.dumps(limits)}", flush=True)
    return content


def check_same(what, former, now):
    """Checks that a run goes on as it began.

    Args:
        what: String, for the message.
        former: Dictionary.
        now: Dictionary.

    Raises:
        ValueError: If they differ.
    """
    if former != now:
        raise ValueError(
            f"--resume needs what the run began with, {what}: {former}. "
            f"Received: {now}"
        )


def start(workers, name, framework):
    """Starts a contestant's process.

    Args:
        workers: A `Workers`.
        name: The contestant's name.
        framework: `"keras"` or `"torch"`.

    Returns:
        A `Worker`.

    Raises:
        ContestantError: If it can't start.
    """
    try:
        return workers.get(name, framework)
    except ContestantError as error:
        needed = "Keras' backend" if framework == "keras" else "torch and timm"
        raise ContestantError(
            f"{name!r} can't start: {error}. It needs {needed}; see "
            "--contestant for what else to time."
        ) from error


def machine():
    """Describes the machine, for the JSON file."""
    driver = pathlib.Path("/proc/driver/nvidia/version")
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "cores allowed": len(os.sched_getaffinity(0)),
        "driver": driver.read_text().splitlines()[0]
        if driver.exists()
        else None,
        "load average": os.getloadavg(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "python": platform.python_version(),
    }


def measure_ceilings(limits, worker, plan, dtypes):
    """Measures the limits of a device, as a framework reaches them.

    Args:
        limits: Dictionary that takes them up, but for those it has: "matrix",
            FLOP/s by dtype, and "copy", bytes/s.
        worker: A `Worker`.
        plan: A `Plan`.
        dtypes: List of dtypes of matrix products.
    """
    side, size = MATRIX_SIDE[plan.device], COPY_BYTES[plan.device]

    def seconds(*arguments):
        times = worker.ask(plan.limit(), "ceiling", *arguments)
        return statistics.median(times)

    for dtype in dtypes:
        if dtype not in limits["matrix"]:
            rate = 2 * side**3 / seconds("matrix", dtype, side)
            limits["matrix"][dtype] = rate
    if "copy" not in limits:
        limits["copy"] = 2 * size / seconds("copy", "float32", size)


def highest(ceilings):
    """Gives the limits of the device, as the best framework reaches them.

    Args:
        ceilings: Dictionary from frameworks to what `measure_ceilings` takes
            up. Some may be missing.

    Returns:
        Dictionary: FLOP/s of matrix products by dtype, and "copy", bytes/s.
    """
    limits = [
        {**limits["matrix"], **{k: v for k, v in limits.items() if k == "copy"}}
        for limits in ceilings.values()
    ]
    return {
        key: max(one[key] for one in limits if key in one)
        for key in set().union(*limits)
    }
