"""A short measurement that finds the fastest form of a pass on this device.

The result is kept, so that every later process on such a device, a resumed
training too, computes the same without measuring.
"""

import concurrent.futures
import json
import logging
import math
import os
import pathlib
import platform
import statistics
import threading
import time

import keras
from keras import ops

from convmixer_tf.files import replaced
from convmixer_tf.layers.depthwise_passes import backend_module
from convmixer_tf.layers.depthwise_passes import forms_of
from convmixer_tf.timing import cpu
from convmixer_tf.timing import take_turns

CACHE = "CONVMIXER_CACHE"  # The environment variable that names the folder.

# Larger batches are measured by a part that is still larger than any cache.
LARGEST = 2**27  # values

# How far a form may be from the native one, as a fraction of the largest
# value: a few roundings, and in single precision TF32, which GPUs use.
TOLERANCES = {"float16": 5e-3, "bfloat16": 3e-2, "float64": 1e-9}
TOLERANCE = 2e-3

ROUNDS = 7
SECONDS = 2e-3  # Calls between two looks at the clock take about that long.
CONTENDERS = 2.0  # Of what is slower than the fastest by more, one run is all.
GAIN = 0.95  # Native stays, unless another takes less than this part of it.

_LOCK = threading.Lock()
_known = {}
_log = logging.getLogger(__name__)


def choose(name, shape, kernel_size, dtype):
    """Names the fastest form, from memory, from the file, or by measuring.

    It may be called while a graph is being traced.

    Args:
        name: The pass, one of `depthwise_passes.PASSES`.
        shape: (batch, height, width, dim), integers.
        kernel_size: (rows, columns).
        dtype: String.

    Returns:
        The form's name.
    """
    shape = _measured_shape(shape)
    key = key_of(name, shape, kernel_size, dtype)
    with _LOCK:
        if key not in _known:
            _known[key] = read_cache().get(key)
        if not _known[key] or _known[key].get("form") not in forms_of(name):
            # Tracing belongs to a thread: in a new one, nothing is traced.
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                arguments = (name, shape, kernel_size, dtype)
                _known[key] = pool.submit(measure, *arguments).result()
            _log.info("%s: %s", key, _known[key])
            _write_cache({key: _known[key]})
        return _known[key]["form"]


def forget():
    """Forgets what this process has read or measured; the file stays."""
    with _LOCK:
        _known.clear()


def _measured_shape(shape):
    """Rounds the batch down to a power of two that is large enough."""
    batch, *rest = shape
    batch = max(1, min(batch, LARGEST // math.prod(rest)))
    return (2 ** int(math.log2(batch)), *rest)


def key_of(name, shape, kernel_size, dtype):
    """Says in one line what was measured, and on what."""
    kind, device, version = backend_module().device()
    if kind == "cpu":
        affinity = getattr(os, "sched_getaffinity", None)  # On Linux.
        cores = len(affinity(0)) if affinity else os.cpu_count()
        device = f"{cpu().get('model name', platform.machine())} x {cores}"
    shape, taps = ("x".join(map(str, sizes)) for sizes in (shape, kernel_size))
    backend = f"{keras.backend.backend()} {version}"
    return f"{device}, {backend}, {name}, {shape}, {taps}, {dtype}"


def cache_path():
    """Gives the path of the file in which choices are kept."""
    folder = os.environ.get(CACHE) or "~/.cache/convmixer_tf"
    return pathlib.Path(folder).expanduser() / "depthwise.json"


def read_cache():
    """Reads the choices that are kept; none, if the file can't be read."""
    try:
        content = json.loads(cache_path().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        _log.warning("`%s` is not used: %s", cache_path(), error)
        return {}
    entries = content if isinstance(content, dict) else {}
    return {key: e for key, e in entries.items() if isinstance(e, dict)}


def _write_cache(entries):
    path = cache_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another process may have added to it since.
        content = json.dumps({**read_cache(), **entries}, indent=1)
        with replaced(path) as unfinished:
            pathlib.Path(unfinished).write_text(content, encoding="utf-8")
    except OSError as error:
        _log.warning("What was measured can't be kept: %s", error)


def measure(name, shape, kernel_size, dtype):
    """Measures every form that computes the same as the native one.

    Args:
        name: The pass.
        shape: (batch, height, width, dim).
        kernel_size: (rows, columns).
        dtype: String.

    Returns:
        Dictionary: `"form"`, the name of the fastest; `"ms"`, milliseconds by
        name, medians of those that took turns, one run of the others;
        `"left_out"`, reasons by name; `"seconds"`, what measuring took.
    """
    start = time.perf_counter()
    steps, left_out = runnable(name, shape, kernel_size, dtype)
    seconds = {form: took for form, (_, took) in steps.items()}
    limit = CONTENDERS * min(seconds.values())
    steps = {
        form: repeated(step, took)
        for form, (step, took) in steps.items()
        if took <= limit or form == "native"
    }
    turns = take_turns(
        {form: step for form, (step, _) in steps.items()},
        ROUNDS,
        0,
        time.perf_counter,
    )
    for form, times in turns.items():
        seconds[form] = statistics.median(times) / steps[form][1]
    best = min(turns, key=seconds.get)
    worth = seconds[best] < GAIN * seconds["native"]
    return {
        "form": best if worth else "native",
        "ms": {form: 1e3 * took for form, took in seconds.items()},
        "left_out": left_out,
        "seconds": time.perf_counter() - start,
    }


def runnable(name, shape, kernel_size, dtype, only=None, clock=None):
    """Compiles every form and compares its result with the native one's.

    Args:
        name: The pass.
        shape: (batch, height, width, dim).
        kernel_size: (rows, columns).
        dtype: String.
        only: Names of forms to try, beside the native one; all by default.
        clock: Function that gives the time in seconds; by default, the wall's.

    Returns:
        Dictionary from names to functions without arguments that compute it
        on random data, and the seconds that their second call took; and a
        dictionary of the reasons why others are left out.
    """
    clock, forms = clock or time.perf_counter, forms_of(name)
    if only:
        forms = {form: forms[form] for form in ("native", *only)}
    arguments = _arguments(name, shape, kernel_size, dtype)
    steps, left_out, expected = {}, {}, None
    for form, function in forms.items():
        if name == "kernel_gradient":
            function = _with_size(function, kernel_size)
        try:
            step = _step(backend_module().compiled(function), arguments)
            result = step()
            if expected is None:
                expected = result
            error = _difference(result, expected)
            if not error <= TOLERANCES.get(dtype, TOLERANCE):
                raise ArithmeticError(f"differs from native by {error:.2g}")
            del result
            before = clock()
            step()
            steps[form] = step, clock() - before
        except Exception as error:  # Whatever a compiler or a device raises.
            if form == "native":
                raise
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            left_out[form] = reason[:200]
    return steps, left_out


def repeated(step, seconds):
    """Lets a step be called often enough for a clock.

    Args:
        step: Function without arguments.
        seconds: What one call takes.

    Returns:
        Function that calls it several times, and how many times.
    """
    times = max(1, min(100, int(SECONDS / max(seconds, 1e-9))))

    def steps():
        for _ in range(times):
            step()

    return steps, times


def _step(function, arguments):
    return lambda: function(*arguments)


def _with_size(function, kernel_size):
    return lambda x, dy: function(x, dy, kernel_size)


def _arguments(name, shape, kernel_size, dtype):
    """Random data, made on the device."""
    kernel = (*kernel_size, shape[3], 1)
    shapes = (shape, shape if name == "kernel_gradient" else kernel)
    return [
        ops.cast(keras.random.normal(shape, seed=seed), dtype)
        for seed, shape in enumerate(shapes)
    ]


def _difference(actual, expected):
    actual, expected = (ops.cast(a, "float32") for a in (actual, expected))
    largest = ops.max(ops.abs(expected))
    return float(ops.max(ops.abs(actual - expected)) / largest)
