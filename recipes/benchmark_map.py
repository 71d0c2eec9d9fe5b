"""Measures `convmixer map` beside `predict`, and kills its workers.

    python recipes/benchmark_map.py --images FOLDER --output map.json

Each command classifies few images and then many. Speed and processor time are
computed from the difference, so the start of a command is not counted. Memory
is the largest sum over all processes of a command. Shared pages count once.

With `--kill`, a cluster of three nodes on this machine classifies all images
twice. In the second run, a worker and then a node get SIGKILL. Both outputs
must have equal rows.

Time: 50,000 images of CIFAR-10 take about 20 minutes of two idle cores, and
`--kill` about 10.
Result: recipes/results/map_memory.json, map_killed.json.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import launch
from absl import flags
from absl import logging

from convmixer_tf.files import check_destination
from convmixer_tf.files import dump_json
from convmixer_tf.timing import machine

_IMAGES = flags.DEFINE_string("images", None, "Folder.", required=True)
_MODEL = flags.DEFINE_string("model", "256_8", "As for `convmixer map`.")
_OUTPUT = flags.DEFINE_string(
    "output", "recipes/results/map.json", "JSON file to write."
)
_FEW = flags.DEFINE_integer("few", 5000, "Images in the short runs.", 1)
_MANY = flags.DEFINE_integer("many", 50000, "Images in the long runs.", 2)
_WORKERS = flags.DEFINE_multi_integer("workers", [1, 2], "As for `map`.")
_PREDICT = flags.DEFINE_bool("predict", True, "Measure `predict`, too.")
_KILL = flags.DEFINE_bool("kill", False, "Kill a worker and a node instead.")

_DONE = (0, 3)  # Exit status of `map`; 3 if some rows have an error.
_TICKS = os.sysconf("SC_CLK_TCK")  # Per second.


def processes():
    """Reads the parent, processor seconds and command of each process."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # It has just ended.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            seconds = (int(fields[11]) + int(fields[12])) / _TICKS
            command = (folder / "cmdline").read_bytes().decode()
            found[int(folder.name)] = (int(fields[1]), seconds, command)
    return found


def family(root, found):
    """Lists a process and all its descendants."""
    numbers = [root]
    for number in numbers:
        numbers += [x for x, (parent, *_) in found.items() if parent == number]
    return [x for x in numbers if x in found]


def memory(number):
    """Reads the memory of a process in MB, with its share of shared pages."""
    with contextlib.suppress(OSError):
        lines = pathlib.Path(f"/proc/{number}/smaps_rollup").read_text()
        return int(lines.partition("\nPss:")[2].split()[0]) / 1000
    return 0.0


def start(command, *arguments):
    """Starts a command of `convmixer`."""
    return subprocess.Popen(
        [sys.executable, "-m", "convmixer_tf", command, *map(str, arguments)]
    )


def measure(command, *arguments):
    """Runs a command and measures all its processes."""
    began, seconds, workers, peak = time.monotonic(), {}, set(), 0.0
    process = start(command, *arguments)
    while process.poll() is None:
        found = processes()
        numbers = family(process.pid, found)
        seconds |= {number: found[number][1] for number in numbers}
        workers |= {x for x in numbers if "MapWorker" in found[x][2]}
        peak = max(peak, sum(map(memory, numbers)))
        time.sleep(0.5)
    if process.returncode not in _DONE:
        raise RuntimeError(f"`convmixer {command}` failed.")
    return {
        "seconds": time.monotonic() - began,
        "processor_seconds": sum(seconds.values()),
        "workers_processor_seconds": sum(seconds[x] for x in workers),
        "peak_mb": peak,
    }


def compare(paths, folder, model):
    """Measures each command with few and with many images."""
    results = {}
    ways = {f"map, {n} workers": ("map", n) for n in _WORKERS.value}
    if _PREDICT.value:
        ways = {"predict": ("predict", 0), **ways}
    for name, (command, workers) in ways.items():
        runs = {}
        for count in (_FEW.value, _MANY.value):
            names = folder / f"{count}.txt"
            names.write_text("\n".join(map(str, paths[:count])))
            output = folder / f"{command}-{workers}-{count}"
            if command == "map":
                more = (names, f"--workers={workers}")
            else:
                more = ("--list", names, "--format=csv")
            runs[count] = measure(
                command, *more, f"--model={model}", f"--output={output}"
            )
            logging.info("%s, %d images: %s", name, count, runs[count])
        few, many = runs.values()
        images = _MANY.value - _FEW.value
        results[name] = {
            "runs": runs,
            "images_per_second": images / (many["seconds"] - few["seconds"]),
            "images_per_processor_second": images
            / (many["processor_seconds"] - few["processor_seconds"]),
            "peak_ratio": many["peak_mb"] / few["peak_mb"],
        }
    return results


def wait_for_parts(process, output, count):
    """Waits until the output has that many files."""
    while len(list(output.glob("part-*"))) < count:
        if process.poll() is not None:
            raise RuntimeError("The command ended before all kills.")
        time.sleep(0.05)


def kill_worker(raylet):
    """Kills a worker of a node and returns its process number."""
    while True:  # The worker may be starting.
        for number, (parent, _, command) in processes().items():
            if parent == raylet and "MapWorker" in command:
                os.kill(number, signal.SIGKILL)
                return number
        time.sleep(0.05)


def survive(source, folder, model):
    """Computes an output twice, once with a worker and a node killed."""
    import ray
    from pyarrow import parquet
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    head = {
        "num_cpus": 0,
        "include_dashboard": False,
        "_system_config": {"worker_niceness": 0},
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        more = ("--workers=2", f"--model={model}", "--address", cluster.address)
        process = start("map", source, "--output", folder / "alone", *more)
        if process.wait() not in _DONE:
            raise RuntimeError("The undisturbed run failed.")
        parts = len(list((folder / "alone").glob("part-*")))
        raylets = [x.all_processes["raylet"][0].process.pid for x in nodes]
        process = start("map", source, "--output", folder / "killed", *more)
        wait_for_parts(process, folder / "killed", parts // 4)
        kill_worker(raylets[0])
        wait_for_parts(process, folder / "killed", parts // 2)
        kill_worker(raylets[1])
        os.kill(raylets[1], signal.SIGKILL)
        if process.wait() not in _DONE:
            raise RuntimeError("The disturbed run failed.")
    finally:
        ray.shutdown()
        cluster.shutdown()
    alone, killed = (
        parquet.read_table(folder / name).to_pylist()
        for name in ("alone", "killed")
    )
    return {
        "images": len(alone),
        "files": parts,
        "errors": sum(row["error"] is not None for row in alone),
        "equal_rows": sum(x == y for x, y in zip(alone, killed, strict=True)),
    }


def main(argv):
    """Runs the measurement that the flags select."""
    launch.start(argv)
    check_destination(_OUTPUT.value, (".json",), overwrite=True)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if _KILL.value:
            results = survive(_IMAGES.value, folder, _MODEL.value)
        else:
            paths = sorted(pathlib.Path(_IMAGES.value).resolve().rglob("*.*"))
            results = compare(paths, folder, _MODEL.value)
    name = pathlib.Path(_MODEL.value).name
    record = {"model": name, "results": results, "machine": machine()}
    dump_json(_OUTPUT.value, record)
    logging.info("Wrote %s", _OUTPUT.value)


if __name__ == "__main__":
    launch.run(main)
