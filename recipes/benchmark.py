"""Compares the speed of this ConvMixer with timm's or another checkout's.

    taskset -c 0 python recipes/benchmark.py --clock cpu
    KERAS_BACKEND=jax python recipes/benchmark.py --device gpu --dtype bfloat16
    python recipes/benchmark.py --against ../before

It needs `pip install torch timm`, except for `--against` alone. A training step
is a forward pass, a backward pass and AdamW, and ends with the loss on the
host. Inference is a forward pass and ends with the logits on the host. This
package uses Keras' `train_on_batch` and `predict_on_batch`, with the backend in
`KERAS_BACKEND`. Each implementation runs in a separate process. In every round,
the implementations take turns, in the reverse order of the previous round, so
that other load on the machine affects all of them. Only the ratios are
meaningful. A ratio is the median over the rounds of this package's time divided
by the other's time in the same round.

The script writes JSON after each case and prints a Markdown table.

Time: twenty minutes for all models in float32 on one core. The figures are in
results/README.md, "Inference and training against timm". The figures in
`results/benchmark*.json` are from an earlier version of this script, at commit
f1af6dd.
"""

import dataclasses
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys

import launch
from absl import app
from absl import flags
from absl import logging

from convmixer_tf.files import check_destination
from convmixer_tf.files import dump_json
from convmixer_tf.timing import CLOCKS
from convmixer_tf.timing import machine
from convmixer_tf.weights import PUBLISHED_WEIGHTS

STEPS = ("infer", "train")
DTYPES = ("float32", "bfloat16")
IMPLEMENTATIONS = {  # Name: framework and its options.
    "ours": ("keras", {"compiled": False}),
    "ours_compiled": ("keras", {"compiled": True}),
    "timm": ("timm", {"compiled": False, "channels_last": False}),
    "timm_nhwc": ("timm", {"compiled": False, "channels_last": True}),
    "timm_compiled": ("timm", {"compiled": True, "channels_last": False}),
    "timm_nhwc_compiled": ("timm", {"compiled": True, "channels_last": True}),
}
AGAINST = "against"


_FIELDS = (
    *("dim", "depth", "kernel_size", "patch_size", "activation"),
    *("image_size", "classes"),
)
MODELS = {
    name.removeprefix("convmixer_"): {x: getattr(facts, x) for x in _FIELDS}
    for name, facts in PUBLISHED_WEIGHTS.items()
}
PUBLISHED = list(MODELS)
# A tiny model for trying out the command.
MODELS["16_2"] = dict(zip(_FIELDS, (16, 2, 3, 4, "gelu", 32, 10), strict=True))
BATCH_SIZES = {
    "cpu": {
        **{"1536_20": 2, "768_32": 4, "1024_20": 4, "512_16": 8},
        **{"256_8": 64, "16_2": 8},
    },
    "gpu": {
        **{"1536_20": 128, "768_32": 128, "1024_20": 256, "512_16": 512},
        **{"256_8": 1024, "16_2": 1024},
    },
}

_MODEL = flags.DEFINE_multi_enum(
    "model", PUBLISHED, list(MODELS), "Model to time; repeatable."
)
_STEP = flags.DEFINE_multi_enum("step", STEPS, STEPS, "Repeatable.")
_DTYPE = flags.DEFINE_multi_enum(
    "dtype",
    ["float32"],
    DTYPES,
    "bfloat16 is mixed precision, with float32 weights; repeatable.",
)
_IMPLEMENTATION = flags.DEFINE_multi_enum(
    "implementation",
    None,
    list(IMPLEMENTATIONS),
    "Implementation to time; repeatable. `compiled` is XLA for TensorFlow and "
    "torch.compile for timm; `nhwc` is PyTorch's channels_last. Default: ours, "
    "timm, timm_nhwc; with --against, ours.",
)
_AGAINST = flags.DEFINE_string(
    "against", None, "Another checkout of convmixer_tf to compare with."
)
_DEVICE = flags.DEFINE_enum(
    "device", "auto", ["auto", "cpu", "gpu"], "auto: an NVIDIA GPU, if any."
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Images per step. Default: by model and device.", 1
)
_ROUNDS = flags.DEFINE_integer("rounds", 11, "Number of rounds.", 3)
_STEPS_A_TURN = flags.DEFINE_integer(
    "steps_a_turn", None, "Timed steps. Default: 1 on a CPU, 10 on a GPU.", 1
)
_THREADS = flags.DEFINE_integer(
    "threads", None, "Threads of each process. Default: 1 on a CPU.", 1
)
_CLOCK = flags.DEFINE_enum(
    "clock",
    "wall",
    list(CLOCKS),
    "cpu counts the time of all threads and excludes other processes.",
)
_OUTPUT = flags.DEFINE_string("output", "benchmark.json", "JSON to write.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an existing file.")


class WorkerError(RuntimeError):
    """Raised with the reason if an implementation fails."""


class Worker:
    """The process of an implementation.

    Args:
        environment: Dictionary, its environment variables.
    """

    def __init__(self, environment):
        script = pathlib.Path(__file__).with_name("benchmark_worker.py")
        self._process = subprocess.Popen(
            [sys.executable, script],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, method, **arguments):
        """Calls a method of `benchmark_worker.Worker`.

        Raises:
            WorkerError: If the method fails.
        """
        try:
            print(
                json.dumps([method, arguments]),
                file=self._process.stdin,
                flush=True,
            )
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            raise WorkerError(f"The process ended with status {status}.")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer["result"]

    def close(self):
        """Ends the process."""
        self._process.kill()
        self._process.communicate()


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of the measurement."""

    device: str
    threads: int | None
    clock: str
    rounds: int
    steps_a_turn: int


def read_settings():
    """Creates `Settings` from the flags and checks the other flags.

    Raises:
        ValueError: If a flag is wrong.
    """
    device = _DEVICE.value
    if device == "auto":
        device = "gpu" if os.path.exists("/dev/nvidiactl") else "cpu"
    if (device, _CLOCK.value) == ("gpu", "cpu"):
        raise ValueError(
            "`--clock cpu` does not measure GPU time. Use `--clock wall`."
        )
    path = _AGAINST.value
    if path and not pathlib.Path(path, "convmixer_tf/__init__.py").is_file():
        raise ValueError(
            "`--against` must be a checkout, a folder that contains "
            f"`convmixer_tf`. Received: {path!r}"
        )
    cpu = device == "cpu"
    return Settings(
        device,
        _THREADS.value or (1 if cpu else None),
        _CLOCK.value,
        _ROUNDS.value,
        _STEPS_A_TURN.value or (1 if cpu else 10),
    )


def implementations():
    """Lists the implementations: this one first, the other checkout second."""
    against = [AGAINST] if _AGAINST.value else []
    default = [] if against else ["timm", "timm_nhwc"]
    names = _IMPLEMENTATION.value or ["ours", *default]
    return list(dict.fromkeys([*names[:1], *against, *names[1:]]))


def environment(name, settings):
    """Builds the environment variables that frameworks read at start."""
    checkout = pathlib.Path(__file__).parents[1]
    if name == AGAINST:
        checkout = pathlib.Path(_AGAINST.value).resolve()
    path = [str(checkout), os.environ.get("PYTHONPATH")]
    variables = {
        # On a GPU, the implementations share the memory.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
    }
    if settings.device == "cpu":
        variables |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    if settings.threads:
        # XLA uses NPROC as the number of cores.
        threads = str(settings.threads)
        variables |= {"OMP_NUM_THREADS": threads, "NPROC": threads}
    return variables


def start(name, settings):
    """Starts the process of an implementation.

    Args:
        name: A name in `IMPLEMENTATIONS`, or `"against"`.
        settings: A `Settings`.

    Returns:
        A `Worker`, and a dictionary that describes it.

    Raises:
        WorkerError: If it does not start or does not use the device.
    """
    key = "ours" if name == AGAINST else name
    framework, options = IMPLEMENTATIONS[key]
    variables = environment(name, settings)
    worker = Worker(variables)
    try:
        facts = worker.ask(
            "start",
            framework=framework,
            options={"threads": settings.threads, **options},
            clock=settings.clock,
        )
        if facts["device"] != settings.device:
            raise WorkerError(
                f"it must run on a {settings.device}. Received: "
                f"{facts['device']}"
            )
        if package := facts.pop("package", None):
            facts["commit"] = _commit(package)
            checkout = variables["PYTHONPATH"].partition(os.pathsep)[0]
            if pathlib.Path(package).parent != pathlib.Path(checkout):
                raise WorkerError(f"it imports {package}, not {checkout}")
    except WorkerError as error:
        worker.close()
        raise WorkerError(f"`{name}` cannot start: {error}") from error
    return worker, facts


def _commit(package):
    """Returns the git commit of a package, or `None`."""
    command = ("git", "-C", package, "describe", "--always", "--dirty")
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    return result.stdout.strip() or None


def measure(workers, case, settings):
    """Times one case.

    Args:
        workers: Dictionary from names to `Worker`. A worker that fails is
            skipped.
        case: Dictionary, the arguments of `benchmark_worker.Worker.build`.
        settings: A `Settings`.

    Returns:
        Dictionary by implementation: the milliseconds per image of each round,
        the seconds of the first step, and the reason of a failure.
    """
    first, failed, times = {}, {}, {}
    for name, worker in workers.items():
        try:
            first[name] = worker.ask("build", **case)
            worker.ask("time", steps=settings.steps_a_turn)  # Warm-up.
            times[name] = []
        except WorkerError as error:
            failed[name] = str(error)
    for turn in range(settings.rounds):
        for name in list(times)[:: -1 if turn % 2 else 1]:
            try:
                one = workers[name].ask("time", steps=settings.steps_a_turn)
                times[name].append(1e3 * one / case["batch_size"])
            except WorkerError as error:
                failed[name] = str(error)
                del times[name]
    return {
        "milliseconds_an_image": times,
        "first_step_seconds": first,
        "failed": failed,
    }


def summarize(times, reference):
    """Computes the statistics of a case over the rounds.

    Args:
        times: Dictionary from names to lists, the milliseconds of each round.
        reference: The name of the implementation to compare with.

    Returns:
        Dictionary from names to dictionaries: median and quartiles of the
        milliseconds, images per second, and median and quartiles of the ratios
        of the reference's time to this time in the same round.
    """
    rows = {}
    for name, values in times.items():
        low, median, high = _quartiles(values)
        rows[name] = {
            "milliseconds_an_image": median,
            "quartiles": [low, high],
            "images_per_second": 1e3 / median,
        }
        if name != reference and reference in times:
            pairs = zip(times[reference], values, strict=True)
            low, median, high = _quartiles([a / b for a, b in pairs])
            rows[name] |= {"ratio": median, "ratio_quartiles": [low, high]}
    return rows


def _quartiles(values):
    return statistics.quantiles(values, n=4, method="inclusive")


def table(results):
    """Formats the results as a Markdown table.

    Args:
        results: List of dictionaries, as in the JSON file.

    Returns:
        String, a line for each implementation of each case.
    """
    lines = [
        "| model | step | dtype | batch | implementation | ms an image "
        "(quartiles) | images/s | ratio (quartiles) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        case = [result[x] for x in ("model", "step", "dtype", "batch_size")]
        for name, row in result["summary"].items():
            cells = [*map(str, case), name]
            cells.append(
                "{:.4g} ({:.4g} to {:.4g})".format(
                    row["milliseconds_an_image"], *row["quartiles"]
                )
            )
            rate = row["images_per_second"]
            cells.append(f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}")
            cells.append(
                "{:.3f} ({:.3f} to {:.3f})".format(
                    row["ratio"], *row["ratio_quartiles"]
                )
                if "ratio" in row
                else "-"
            )
            lines.append(f"| {' | '.join(cells)} |")
        for name, reason in result["failed"].items():
            cells = [*map(str, case), name, reason.replace("|", "/"), "-", "-"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments):
    """Times every case."""
    if len(arguments) > 1:
        raise app.UsageError(f"Unexpected arguments: {arguments[1:]}")
    check_destination(_OUTPUT.value, (".json",), _OVERWRITE.value)
    logging.set_verbosity(logging.INFO)
    settings = read_settings()
    content = {
        "arguments": sys.argv[1:],
        "machine": machine(),
        "settings": dataclasses.asdict(settings),
        "implementations": {},
        "results": [],
    }
    workers = {}
    try:
        for name in implementations():
            worker, facts = start(name, settings)
            workers[name] = worker
            content["implementations"][name] = facts
            logging.info("%s: %s", name, facts)
        for name, step, dtype in itertools.product(
            _MODEL.value, _STEP.value, _DTYPE.value
        ):
            size = _BATCH_SIZE.value or BATCH_SIZES[settings.device][name]
            case = {"step": step, "dtype": dtype, "batch_size": size}
            case = {"model": MODELS[name], **case}
            result = case | measure(workers, case, settings) | {"model": name}
            result["summary"] = summarize(
                result["milliseconds_an_image"], next(iter(workers))
            )
            content["results"].append(result)
            dump_json(_OUTPUT.value, content)
            logging.info("\n%s", table([result]))
    finally:
        for worker in workers.values():
            worker.close()
    print(table(content["results"]))


if __name__ == "__main__":
    launch.run(main)
