"""Times ConvMixer, ours against timm's, on a CPU or a GPU, in one run.

    taskset -c 0 python recipes/benchmark.py
    KERAS_BACKEND=jax python recipes/benchmark.py --dtype bfloat16

Needs `pip install torch timm`. Our steps run on Keras' backend. A training step
is forward, backward and AdamW; inference is a forward pass to the logits. Each
framework is a process of its own. On a CPU, contestants take turns, one step
each, so that whatever else the machine does falls on all of them: only the
ratios mean something. `taskset` keeps one thread on one core. On a GPU they
come one after the other, so that each has all the memory, and the batch grows
until images/s don't.

Next to the times stand those of the device's own limits, a large matrix product
and a large copy, and what was predicted beforehand:

    python recipes/benchmark.py --predict --output predictions.json

Time: twenty minutes. Result: results/benchmark.json, and "Speed" in BUILD.md.
"""

import itertools
import json
import os
import pathlib
import time

import launch
from absl import app
from absl import flags
from speed import report
from speed.cases import DTYPES
from speed.cases import STEPS
from speed.cases import Case
from speed.cases import find_contestant
from speed.costs import H200
from speed.costs import MODELS
from speed.costs import predictions
from speed.device import begin
from speed.device import highest
from speed.rounds import FEWEST_ROUNDS
from speed.rounds import OutOfTimeError
from speed.rounds import Plan
from speed.rounds import Store
from speed.rounds import measure
from speed.rounds import schedule
from speed.workers import CLOCKS
from speed.workers import Settings
from speed.workers import Workers

from convmixer_tf.files import check_destination
from convmixer_tf.files import dump_json
from convmixer_tf.files import replaced
from convmixer_tf.layers import set_depthwise

PUBLISHED = [name for name in MODELS if name != "16_2"]
DEFAULT_CONTESTANTS = {
    "cpu": ["ours", "timm NCHW", "timm NHWC"],
    "gpu": [
        "ours",
        "ours pallas",
        "ours auto",
        "ours auto pure",
        "timm NCHW",
        "timm NHWC",
        "timm NCHW compiled",
        "timm NHWC compiled",
        "timm NCHW pure",
        "timm NHWC pure",
        "timm NHWC compiled pure",
    ],
}
GPU_ROUND_SECONDS = 0.1

_MODEL = flags.DEFINE_multi_enum(
    "model", PUBLISHED, list(MODELS), "What to time; repeatable."
)
_STEP = flags.DEFINE_multi_enum("step", STEPS, STEPS, "Repeatable.")
_DTYPE = flags.DEFINE_multi_enum(
    "dtype",
    DTYPES,
    DTYPES,
    "float32, or mixed precision with bfloat16; repeatable.",
)
_CONTESTANT = flags.DEFINE_multi_string(
    "contestant",
    None,
    "Who is timed; repeatable. ours, timm NCHW or timm NHWC (channels last), "
    "then compiled (by XLA, in TensorFlow, or by torch.compile) or pure "
    "(inference with bfloat16 weights) or both; ours also with a word that "
    "CONVMIXER_DEPTHWISE can have, such as auto. Default: on a CPU ours and "
    "timm's uncompiled, on a GPU all.",
)
_BATCH_SIZE = flags.DEFINE_multi_string(
    "batch_size",
    None,
    "Images a step; repeatable. auto: doubled while images/s grow, from the "
    "largest given. Default: one that suits the model, on a GPU auto.",
)
_ROUNDS = flags.DEFINE_integer(
    "rounds", 11, "Timed rounds of each.", FEWEST_ROUNDS
)
_WARMUP = flags.DEFINE_integer("warmup", 2, "Untimed steps before.", 1)
_SECONDS = flags.DEFINE_float(
    "seconds", 600, "For a contestant and a batch size, at most.", 1
)
_MINUTES = flags.DEFINE_float(
    "minutes", None, "After which it ends; go on with --resume.", 0.1
)
_DEVICE = flags.DEFINE_enum(
    "device", "auto", ["auto", "cpu", "gpu"], "auto: an NVIDIA GPU if any."
)
_TOGETHER = flags.DEFINE_bool(
    "together", None, "Whether contestants take turns. Default: on a CPU."
)
_THREADS = flags.DEFINE_integer(
    "threads", None, "Threads for each. Default: on a CPU 1.", 1
)
_CLOCK = flags.DEFINE_enum(
    "clock",
    "wall",
    list(CLOCKS),
    "cpu leaves out the time in which other processes had the core.",
)
_TF32 = flags.DEFINE_bool(
    "tf32", True, "Whether a GPU may multiply float32 in TensorFloat-32."
)
_OUTPUT = flags.DEFINE_string(
    "output", "benchmark.json", "JSON file to write; a picture lies beside it."
)
_RESUME = flags.DEFINE_bool(
    "resume",
    False,
    "Whether to go on with --output. What failed, but not for lack of memory, "
    "is tried again.",
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Whether to replace it.")
_REPORT = flags.DEFINE_bool(
    "report", False, "Sum up what --output has, and time nothing."
)
_PREDICT = flags.DEFINE_bool(
    "predict", False, "Write how long an H200 should take, and time nothing."
)
_PREDICTIONS = flags.DEFINE_string(
    "predictions",
    str(
        pathlib.Path(__file__).parent / "results" / "benchmark_predictions.json"
    ),
    "What --predict wrote; shown if it is of the device that is there.",
)


def main(arguments):
    """Times every case, and writes the JSON file after each of them."""
    if len(arguments) > 1:
        raise app.UsageError(f"Unexpected arguments: {arguments[1:]}")
    replace = _OVERWRITE.value or _RESUME.value or _REPORT.value
    check_destination(_OUTPUT.value, (".json",), replace)
    if _REPORT.value:
        finish(json.loads(pathlib.Path(_OUTPUT.value).read_text()))
        return
    if _PREDICT.value:
        content = predictions(_MODEL.value, H200)
        dump_json(_OUTPUT.value, content)
        print(report.predictions_table(content))
        return
    settings, plan, names = read_flags()
    former = pathlib.Path(_OUTPUT.value)
    goes_on = _RESUME.value and former.exists()
    content = json.loads(former.read_text()) if goes_on else {}
    with Workers(settings, plan.together, plan.deadline) as workers:
        content = begin(content, plan, workers, names, _DTYPE.value)
        try:
            run(content, plan, names, workers)
        except OutOfTimeError:
            print(f"{_MINUTES.value} minutes are over: go on with --resume.")
    finish(content)


def read_flags():
    """Collects what the flags say.

    Returns:
        A `Settings`, a `Plan`, and the list of contestants.

    Raises:
        ValueError: If flags don't go together.
    """
    device = _DEVICE.value
    if device == "auto":
        device = "gpu" if os.path.exists("/dev/nvidiactl") else "cpu"
    gpu = device == "gpu"
    if gpu and _CLOCK.value == "cpu":
        raise ValueError("--clock cpu does not see what a GPU does.")
    settings = Settings(
        device,
        _THREADS.value or (None if gpu else 1),
        _CLOCK.value,
        _WARMUP.value,
        GPU_ROUND_SECONDS if gpu else 0.0,
        _TF32.value,
    )
    given = _BATCH_SIZE.value or (["auto"] if gpu else [])
    sizes = [size for size in given if size != "auto"]
    if not all(size.isdigit() and int(size) for size in sizes):
        raise ValueError(
            "--batch_size must be a positive integer or auto. "
            f"Received: {sizes}"
        )
    minutes = _MINUTES.value
    plan = Plan(
        device,
        (not gpu) if _TOGETHER.value is None else _TOGETHER.value,
        tuple(map(int, sizes)),
        "auto" in given,
        _ROUNDS.value,
        _SECONDS.value,
        time.monotonic() + 60 * minutes if minutes else float("inf"),
    )
    names = _CONTESTANT.value or DEFAULT_CONTESTANTS[device]
    for name in names:
        words = find_contestant(name).depthwise
        if words:
            set_depthwise(*words.split(","))  # Refuses what is no word.
    set_depthwise()
    return settings, plan, names


def run(content, plan, names, workers):
    """Times all cases.

    Args:
        content: Dictionary, ready for JSON, that takes up the results.
        plan: A `Plan`.
        names: List of contestants.
        workers: A `Workers`.

    Raises:
        OutOfTimeError: If the minutes are over.
    """
    ceilings = highest(content["ceilings"])
    store = Store(content["results"], lambda: dump_json(_OUTPUT.value, content))
    cases = [
        Case(*case)
        for case in itertools.product(_MODEL.value, _STEP.value, _DTYPE.value)
    ]
    backend = content["frameworks"].get("keras", {}).get("backend")
    for case, together in schedule(cases, names, backend, plan.together):
        measure(
            case,
            together,
            plan,
            workers,
            store,
            lambda *what: print(report.line(*what, ceilings), flush=True),
        )


def finish(content):
    """Sums up: into the JSON file, as a table, and as a picture.

    Args:
        content: Dictionary, what the JSON file has.
    """
    predicted = pathlib.Path(_PREDICTIONS.value)
    known = json.loads(predicted.read_text()) if predicted.exists() else None
    devices = {facts["device"] for facts in content["frameworks"].values()}
    if known and known["rates"]["device"] not in devices:
        known = None
    content["summary"] = report.summarise(
        content["results"],
        highest(content["ceilings"]),
        known and known["ms_per_image"],
        content["settings"]["together"],
    )
    dump_json(_OUTPUT.value, content)
    print(report.table(content["summary"]))
    if content["summary"]:
        title = ", ".join(
            f"{key} {value}"
            for facts in content["frameworks"].values()
            for key, value in facts.items()
            if key in ("device", "backend", "keras", "torch", "timm")
        )
        picture = pathlib.Path(_OUTPUT.value).with_suffix(".png")
        try:
            with replaced(picture) as unfinished:
                report.save_plot(unfinished, content["summary"], title)
        except ImportError as error:
            print(f"No picture: {error}")


if __name__ == "__main__":
    launch.run(main)
