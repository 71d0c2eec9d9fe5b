"""Times ConvMixer, ours against timm's, on a CPU, in one run.

    taskset -c 0 python recipes/benchmark.py

Needs `pip install torch timm`. A training step is forward, backward and AdamW;
inference is a forward pass to the logits. The contestants take turns, one step
each, so that whatever else the machine does falls on all of them: only the
ratios mean something. Both use the same number of threads; `taskset` keeps
one thread on one core.

Time: ten minutes. Result: results/benchmark.json, and "Speed" in BUILD.md.
"""

import dataclasses
import itertools
import json
import os
import pathlib
import platform
import statistics
import time

from absl import app
from absl import flags

from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced
from convmixer_tf.timing import CLOCKS
from convmixer_tf.timing import cpu
from convmixer_tf.timing import take_turns

MODELS = {  # dim, depth, kernel size, patch size, image's side, classes
    "1024_20": (1024, 20, 9, 14, 224, 1000),
    "768_32": (768, 32, 7, 7, 224, 1000),
    "1536_20": (1536, 20, 9, 7, 224, 1000),
    "256_8": (256, 8, 5, 2, 32, 10),
}
BATCH_SIZES = {"1024_20": 4, "768_32": 4, "1536_20": 2, "256_8": 64}
LEARNING_RATE = 1e-4  # small: nothing may overflow while the clock runs

_MODEL = flags.DEFINE_multi_enum(
    "model", ["1024_20", "256_8"], list(MODELS), "What to time; repeatable."
)
_STEP = flags.DEFINE_multi_enum(
    "step", ["train", "infer"], ["train", "infer"], "Which step; repeatable."
)
_DTYPE = flags.DEFINE_multi_enum(
    "dtype",
    ["float32", "bfloat16"],
    ["float32", "bfloat16"],
    "float32, or mixed precision with bfloat16; repeatable.",
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Images a step. By default 64 for 256_8, else 4.", 1
)
_ROUNDS = flags.DEFINE_integer("rounds", 11, "Timed steps of each.", 3)
_WARMUP = flags.DEFINE_integer("warmup", 2, "Untimed steps before.", 1)
_THREADS = flags.DEFINE_integer("threads", 1, "Threads for each.", 1)
_CLOCK = flags.DEFINE_enum(
    "clock",
    "wall",
    ["wall", "cpu"],
    "cpu leaves out the time in which other processes had the core.",
)
_COMPILE = flags.DEFINE_bool("compile", False, "Whether to add torch.compile.")
_OUTPUT = flags.DEFINE_string(
    "output", "benchmark.json", "JSON file to write; it is replaced."
)


@dataclasses.dataclass(frozen=True)
class Case:
    """What is timed: a model, a step, a precision, a batch size."""

    model: str
    step: str
    dtype: str
    batch_size: int


def our_model(case):
    """Builds our model of a case, in its precision."""
    import keras

    from convmixer_tf import ConvMixer

    dim, depth, kernel_size, patch_size, side, classes = MODELS[case.model]
    policy = "float32" if case.dtype == "float32" else f"mixed_{case.dtype}"
    keras.config.set_dtype_policy(policy)
    return ConvMixer(
        dim,
        depth,
        kernel_size,
        patch_size,
        input_shape=(side, side, 3),
        classes=classes,
        classifier_activation=None,
        include_preprocessing=False,
    )


def our_step(case):
    """Builds our step.

    Args:
        case: A `Case`.

    Returns:
        Function without arguments that runs one step to its end.
    """
    import keras
    import tensorflow as tf

    *_, side, classes = MODELS[case.model]
    model = our_model(case)
    images = tf.random.normal((case.batch_size, side, side, 3))
    labels = tf.random.uniform((case.batch_size,), 0, classes, tf.int32)
    if case.step == "infer":
        infer = tf.function(lambda x: model(x, training=False))
        return lambda: infer(images).numpy()
    variables = model.trainable_variables
    optimizer = keras.optimizers.AdamW(LEARNING_RATE)
    optimizer.build(variables)

    @tf.function
    def train(x, y):
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
            loss = tf.reduce_mean(loss)
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    return lambda: train(images, labels).numpy()


def timm_model(case, channels_last):
    """Builds timm's model of a case."""
    import torch
    from timm.models.convmixer import ConvMixer

    dim, depth, kernel_size, patch_size, _, classes = MODELS[case.model]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return ConvMixer(
        dim,
        depth,
        kernel_size=kernel_size,
        patch_size=patch_size,
        num_classes=classes,
    ).to(memory_format=layout)


def timm_step(case, channels_last, compiled=False):
    """Builds timm's step.

    Args:
        case: A `Case`.
        channels_last: Boolean, whether tensors lie in memory as NHWC.
        compiled: Boolean, whether the model goes through `torch.compile`.

    Returns:
        Function without arguments that runs one step to its end.
    """
    import torch

    *_, side, classes = MODELS[case.model]
    model = timm_model(case, channels_last)
    network = torch.compile(model) if compiled else model
    images = torch.randn(case.batch_size, 3, side, side)
    if channels_last:
        images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(classes, (case.batch_size,))
    half = torch.autocast("cpu", torch.bfloat16, case.dtype == "bfloat16")
    if case.step == "infer":
        model.eval()

        def infer():
            with torch.inference_mode(), half:
                return network(images).float().numpy()

        return infer
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, fused=True)

    def train():
        optimizer.zero_grad()
        with half:
            logits = network(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return train


def contestants(case, compiled):
    """Lists who is timed.

    Args:
        case: A `Case`.
        compiled: Boolean, whether `torch.compile` runs as well.

    Returns:
        Dictionary from names to functions that run one step.
    """
    steps = {
        "ours": our_step(case),
        "timm NCHW": timm_step(case, channels_last=False),
        "timm NHWC": timm_step(case, channels_last=True),
    }
    if compiled:
        steps["timm NHWC compiled"] = timm_step(case, True, compiled=True)
    return steps


def summarise(case, seconds):
    """Reduces the times of one case to medians, spreads and a ratio.

    Args:
        case: A `Case`.
        seconds: What `take_turns` gives, with "ours" among the names.

    Returns:
        Dictionary, ready for JSON. "ratio" is our median over that of timm's
        best; "ratio_quartiles" are those of the ratios round by round. Times
        are in milliseconds per image.
    """
    medians = {name: statistics.median(s) for name, s in seconds.items()}
    best = min((n for n in medians if n != "ours"), key=medians.get)
    rounds = [
        a / b for a, b in zip(seconds["ours"], seconds[best], strict=True)
    ]
    low, _, high = statistics.quantiles(rounds, n=4, method="inclusive")
    return {
        **dataclasses.asdict(case),
        "ms_per_image": {
            name: 1e3 * median / case.batch_size
            for name, median in medians.items()
        },
        "all_ms_per_image": {
            name: [1e3 * one / case.batch_size for one in many]
            for name, many in seconds.items()
        },
        "timm_best": best,
        "ratio": medians["ours"] / medians[best],
        "ratio_quartiles": [low, high],
    }


def table(results):
    """Formats results as a Markdown table.

    Args:
        results: List of what `summarise` gives.

    Returns:
        String, a line per case; times in milliseconds per image.
    """
    lines = [
        "| model | step | dtype | batch | ours | timm's best | ratio | "
        "quartiles |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        times, best = r["ms_per_image"], r["timm_best"]
        low, high = r["ratio_quartiles"]
        lines.append(
            f"| {r['model']} | {r['step']} | {r['dtype']} | {r['batch_size']} "
            f"| {times['ours']:.2f} | {times[best]:.2f} ({best[5:]}) "
            f"| {r['ratio']:.2f} | {low:.2f} to {high:.2f} |"
        )
    return "\n".join(lines)


def machine():
    """Describes the machine and the software, for the JSON file."""
    import keras
    import tensorflow as tf
    import timm
    import torch

    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "cores allowed": len(os.sched_getaffinity(0)),
        "threads": _THREADS.value,
        "clock": _CLOCK.value,
        "load average": os.getloadavg(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
    }


def limit_threads(threads):
    """Gives TensorFlow and PyTorch `threads` threads each.

    Args:
        threads: Integer.

    Raises:
        ImportError: If PyTorch or timm is missing.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        import timm  # noqa: F401
        import torch
    except ImportError as error:
        raise ImportError(
            "The benchmark needs torch and timm: `pip install torch timm`."
        ) from error
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    torch.set_num_threads(threads)


def main(arguments):
    """Times every case and writes the JSON file after each of them."""
    if len(arguments) > 1:
        raise app.UsageError(f"Unexpected arguments: {arguments[1:]}")
    check_destination(_OUTPUT.value, (".json",), overwrite=True)
    limit_threads(_THREADS.value)
    results = []
    for model, step, dtype in itertools.product(
        _MODEL.value, _STEP.value, _DTYPE.value
    ):
        batch_size = _BATCH_SIZE.value or BATCH_SIZES[model]
        case = Case(model, step, dtype, batch_size)
        seconds = take_turns(
            contestants(case, _COMPILE.value),
            _ROUNDS.value,
            _WARMUP.value,
            CLOCKS[_CLOCK.value],
        )
        results.append(summarise(case, seconds))
        print(table(results[-1:]).splitlines()[-1], flush=True)
        content = {"machine": machine(), "results": results}
        with replaced(_OUTPUT.value) as unfinished:
            pathlib.Path(unfinished).write_text(json.dumps(content, indent=1))
    print(table(results))


if __name__ == "__main__":
    app.run(main)
