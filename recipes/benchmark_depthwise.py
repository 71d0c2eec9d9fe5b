"""Times every form of the depthwise convolution, on any device and backend.

    KERAS_BACKEND=jax python recipes/benchmark_depthwise.py --probe

For the layers of each variant it lists, pass by pass, the forms that compute
the same as the native one: the time, as a ratio to the native one, and which
share it reaches of the copy and of the matrix products that this device was
measured to do in the same run. The forms take turns. `--probe` then lets the
probe choose, which is what `set_depthwise("auto")` does, and says what that
cost; what it chooses is kept for later processes. On a CPU, `taskset -c 0`
gives one core, and `--clock cpu` leaves out the time in which other processes
had it.

Time: minutes on a GPU. Result: JSON and a table; see "Depthwise forms and the
probe" in BUILD.md.
"""

import itertools
import json
import math
import os
import pathlib
import statistics
import time

import launch
from absl import app
from absl import flags

from convmixer_tf.files import check_destination
from convmixer_tf.files import dump_json
from convmixer_tf.timing import CLOCKS
from convmixer_tf.timing import cpu
from convmixer_tf.timing import take_turns

LAYERS = {  # height and width, dim, kernel size
    "1536_20": (32, 1536, 9),
    "768_32": (32, 768, 7),
    "1024_20": (16, 1024, 9),
    "256_8": (16, 256, 5),
}
PASSES = ("forward", "input_gradient", "kernel_gradient")
CASE = ("dtype", "layer", "pass", "batch_size")
FAR = 5  # What takes so many times as long as the fastest gets no more turns.

_LAYER = flags.DEFINE_multi_enum(
    "layer", list(LAYERS), list(LAYERS), "Whose layer to time; repeatable."
)
_PASS = flags.DEFINE_multi_enum(
    "pass", PASSES, PASSES, "Which pass to time; repeatable."
)
_DTYPE = flags.DEFINE_multi_enum(
    "dtype",
    ["bfloat16"],
    ["float32", "bfloat16", "float16"],
    "What to compute in; repeatable.",
)
_FORM = flags.DEFINE_multi_string(
    "form", [], "Which form to time beside native; repeatable. Default: all."
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Images. By default 256, on a CPU 4.", 1
)
_ROUNDS = flags.DEFINE_integer("rounds", 11, "Timed turns of each.", 3)
_CLOCK = flags.DEFINE_enum(
    "clock", "wall", list(CLOCKS), "cpu makes sense on a CPU only."
)
_PROBE = flags.DEFINE_bool("probe", False, "Whether to run the probe as well.")
_OUTPUT = flags.DEFINE_string(
    "output", "benchmark_depthwise.json", "JSON file to write; it is replaced."
)
_RESUME = flags.DEFINE_bool(
    "resume", False, "Whether to keep what --output has, and time the rest."
)
_MINUTES = flags.DEFINE_float(
    "minutes", None, "After which nothing is begun; go on with --resume.", 0.1
)


def median_seconds(steps, times):
    """Times steps that take turns.

    Args:
        steps: Dictionary from names to functions without arguments.
        times: Dictionary from names to seconds of one call, roughly.

    Returns:
        Dictionary from names to seconds, of each round.
    """
    from convmixer_tf.layers.depthwise_probe import repeated

    many = {name: repeated(step, times[name]) for name, step in steps.items()}
    turns = take_turns(
        {name: step for name, (step, _) in many.items()},
        _ROUNDS.value,
        1,
        CLOCKS[_CLOCK.value],
    )
    return {
        name: [one / many[name][1] for one in seconds]
        for name, seconds in turns.items()
    }


def ceilings(dtype, large):
    """Measures what the device copies and multiplies at most.

    Args:
        dtype: String.
        large: Boolean, whether it is a device for large arrays.

    Returns:
        Dictionary: bytes read and written a second, and operations a second
        of a matrix product.
    """
    import keras
    from keras import ops

    from convmixer_tf.layers.depthwise_passes import backend_module

    values, side = (2**28, 8192) if large else (2**24, 1024)
    compiled = backend_module().compiled
    x = ops.cast(keras.random.normal((values,), seed=0), dtype)
    a = ops.cast(keras.random.normal((side, side), seed=0), dtype)
    add, multiply = compiled(lambda x: x + 1), compiled(ops.matmul)
    steps = {"copy": lambda: add(x), "product": lambda: multiply(a, a)}
    seconds = median_seconds(steps, dict.fromkeys(steps, 1e-3))
    best = {name: min(times) for name, times in seconds.items()}
    size = ops.convert_to_numpy(x[:1]).dtype.itemsize
    return {
        "bytes_per_second": 2 * values * size / best["copy"],
        "flops": 2 * side**3 / best["product"],
    }


def measure(name, layer, dtype, batch_size, ceiling):
    """Times all forms of one pass of one layer.

    Args:
        name: The pass.
        layer: One of `LAYERS`.
        dtype: String.
        batch_size: Integer.
        ceiling: What `ceilings` gives.

    Returns:
        Dictionary, ready for JSON. Times are in milliseconds a call. Bytes
        are those of two maps and a kernel; operations, those of the taps.
    """
    from convmixer_tf.layers import depthwise_probe as probe

    side, dim, taps = LAYERS[layer]
    shape, size = (batch_size, side, side, dim), (taps, taps)
    known = [f for f in _FORM.value if f in probe.forms_of(name)]
    if _FORM.value and not known:
        known = ["native"]
    steps, left_out = probe.runnable(
        name, shape, size, dtype, known, CLOCKS[_CLOCK.value]
    )
    once = {form: seconds for form, (_, seconds) in steps.items()}
    near = {
        form: step
        for form, (step, seconds) in steps.items()
        if seconds <= FAR * min(once.values()) or form == "native"
    }
    rounds = median_seconds(near, once)
    seconds = {**once, **{f: statistics.median(s) for f, s in rounds.items()}}
    values, item = math.prod(shape), 4 if dtype == "float32" else 2
    result = {
        "pass": name,
        "layer": layer,
        "dtype": dtype,
        "batch_size": batch_size,
        "ms": {form: 1e3 * s for form, s in seconds.items()},
        "rounds_ms": {f: [1e3 * s for s in many] for f, many in rounds.items()},
        "left_out": left_out,
        "ms_of_a_copy": 2e3 * values * item / ceiling["bytes_per_second"],
        "ms_of_products": 2e3 * values * taps**2 / ceiling["flops"],
    }
    if _PROBE.value:
        start = time.perf_counter()
        form = probe.choose(name, shape, size, dtype)
        seconds = time.perf_counter() - start
        result["probe"] = {"form": form, "seconds": seconds}
    return result


def table(results):
    """Formats results as a Markdown table.

    Args:
        results: List of what `measure` gives.

    Returns:
        String, a line for each form, the fastest first.
    """
    lines = [
        "| layer | pass | dtype | batch | form | ms | to native | of copy | "
        "of products |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        for form, ms in sorted(r["ms"].items(), key=lambda item: item[1]):
            once = "" if form in r["rounds_ms"] else " (once)"
            lines.append(
                f"| {r['layer']} | {r['pass']} | {r['dtype']} "
                f"| {r['batch_size']} | {form} | {ms:.3f}{once} "
                f"| {ms / r['ms']['native']:.2f} "
                f"| {r['ms_of_a_copy'] / ms:.2f} "
                f"| {r['ms_of_products'] / ms:.3f} |"
            )
    return "\n".join(lines)


def machine():
    """Describes the machine and the software, for the JSON file."""
    import keras

    from convmixer_tf.layers.depthwise_passes import backend_module

    kind, device, version = backend_module().device()
    return {
        "device": [kind, device],
        "backend": [keras.backend.backend(), version],
        "keras": keras.__version__,
        "cpu": cpu(),
        "cores allowed": len(os.sched_getaffinity(0)),
        "load average": os.getloadavg(),
        "clock": _CLOCK.value,
        "rounds": _ROUNDS.value,
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def begin():
    """Gives what the JSON file starts with, or has already.

    Raises:
        ValueError: If it is of another device or backend.
    """
    content = {"machine": machine(), "ceilings": {}, "results": []}
    path = pathlib.Path(_OUTPUT.value)
    if not (_RESUME.value and path.exists()):
        return content
    former = json.loads(path.read_text())
    for key in ("device", "backend", "clock"):
        was, now = former["machine"][key], content["machine"][key]
        if was != now:
            raise ValueError(
                f"--resume needs the {key} that the run began with, {was}. "
                f"Received: {now}"
            )
    return former


def check_forms():
    """Raises `UsageError` if no pass has a form that `--form` names."""
    from convmixer_tf.layers.depthwise_passes import forms_of

    known = {form for name in PASSES for form in forms_of(name)}
    if not known.issuperset(_FORM.value):
        unknown = sorted(set(_FORM.value) - known)
        raise app.UsageError(
            f"--form must be among {sorted(known)}. Received: {unknown}"
        )


def main(arguments):
    """Times every case and writes the JSON file after each of them."""
    if len(arguments) > 1:
        raise app.UsageError(f"Unexpected arguments: {arguments[1:]}")
    check_destination(_OUTPUT.value, (".json",), overwrite=True)
    check_forms()
    content = begin()
    on_cpu = content["machine"]["device"][0] == "cpu"
    batch_size = _BATCH_SIZE.value or (4 if on_cpu else 256)
    known = {tuple(r[key] for key in CASE) for r in content["results"]}
    end = time.monotonic() + 60 * (_MINUTES.value or math.inf)
    for case in itertools.product(
        _DTYPE.value, _LAYER.value, _PASS.value, [batch_size]
    ):
        if case in known:
            continue
        if time.monotonic() > end:
            print(f"{_MINUTES.value} minutes are over: go on with --resume.")
            break
        dtype, layer, name, _ = case
        if dtype not in content["ceilings"]:
            content["ceilings"][dtype] = ceilings(dtype, large=not on_cpu)
        ceiling = content["ceilings"][dtype]
        result = measure(name, layer, dtype, batch_size, ceiling)
        content["results"].append(result)
        print("\n".join(table([result]).splitlines()[2:]), flush=True)
        for form, reason in result["left_out"].items():
            print(f"  without {form}: {reason}", flush=True)
        dump_json(_OUTPUT.value, content)
    print(table(content["results"]))


if __name__ == "__main__":
    launch.run(main)
