"""Step time of ConvMixer, ours against timm's, on one machine in one run.

Command:  python recipes/benchmark.py --out=benchmark.json
Needs:    pip install torch timm
Time:     a quarter of an hour on one core
Result:   results/benchmark_cpu.json, and "Speed" in BUILD.md

A training step is forward, backward and AdamW; inference is one forward pass
of the classifier. The contestants take turns, one step each, so that what else
the machine does falls on all of them; only ratios within a run count. Run it
under `taskset -c 0` to keep one thread on one core.
"""

import dataclasses
import json
import os
import pathlib
import platform
import statistics
import time

from absl import app
from absl import flags

MODELS = {  # name: dim, depth, kernel size, patch size, image side, classes
    "1024_20": (1024, 20, 9, 14, 224, 1000),
    "768_32": (768, 32, 7, 7, 224, 1000),
    "1536_20": (1536, 20, 9, 7, 224, 1000),
    "256_8": (256, 8, 5, 2, 32, 10),
}
BATCH = {"1024_20": 4, "768_32": 4, "1536_20": 2, "256_8": 64}
LEARNING_RATE = 1e-4  # small: nothing may overflow while the clock runs

FLAGS = flags.FLAGS
flags.DEFINE_multi_enum(
    "model", ["1024_20", "256_8"], list(MODELS), "What is timed; repeatable."
)
flags.DEFINE_multi_enum(
    "mode", ["train", "infer"], ["train", "infer"], "Which step; repeatable."
)
flags.DEFINE_multi_enum(
    "dtype", ["float32", "bfloat16"], ["float32", "bfloat16"], "Repeatable."
)
flags.DEFINE_integer(
    "batch_size", None, "Images per step; default: 4, or 64 for 256_8.", 1
)
flags.DEFINE_integer("rounds", 9, "How many steps of each are timed.", 3)
flags.DEFINE_integer("warmup", 2, "How many steps go before, untimed.", 1)
flags.DEFINE_integer("threads", 1, "Threads that each framework may use.", 1)
flags.DEFINE_bool("compile", False, "Whether torch.compile runs as well.")
flags.DEFINE_string("out", "benchmark.json", "The JSON file to write.")


@dataclasses.dataclass(frozen=True)
class Case:
    """What is timed: a model, a step, a precision, a batch size."""

    model: str
    mode: str
    dtype: str
    batch_size: int


def ours(case):
    """Builds our step.

    Args:
        case: A `Case`.

    Returns:
        Function without arguments that runs one step to its end.
    """
    import keras
    import tensorflow as tf

    from convmixer_tf import ConvMixer

    dim, depth, kernel_size, patch_size, side, classes = MODELS[case.model]
    mixed = case.dtype != "float32"
    keras.config.set_dtype_policy(f"mixed_{case.dtype}" if mixed else "float32")
    model = ConvMixer(
        dim,
        depth,
        kernel_size,
        patch_size,
        input_shape=(side, side, 3),
        classes=classes,
        classifier_activation=None,
        include_preprocessing=False,
    )
    keras.config.set_dtype_policy("float32")
    images = tf.random.normal((case.batch_size, side, side, 3))
    labels = tf.random.uniform((case.batch_size,), 0, classes, tf.int32)
    if case.mode == "infer":
        infer = tf.function(lambda x: model(x, training=False))
        return lambda: infer(images).numpy()
    optimizer = keras.optimizers.AdamW(LEARNING_RATE)
    optimizer.build(model.trainable_variables)

    @tf.function
    def train(x, y):
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
            loss = tf.reduce_mean(loss)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    return lambda: train(images, labels).numpy()


def timms(case, channels_last, compiled=False):
    """Builds timm's step.

    Args:
        case: A `Case`.
        channels_last: Boolean, whether tensors lie in memory as NHWC.
        compiled: Boolean, whether the model goes through `torch.compile`.

    Returns:
        Function without arguments that runs one step to its end.
    """
    import torch
    from timm.models.convmixer import ConvMixer

    dim, depth, kernel_size, patch_size, side, classes = MODELS[case.model]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = ConvMixer(
        dim,
        depth,
        kernel_size=kernel_size,
        patch_size=patch_size,
        num_classes=classes,
    ).to(memory_format=layout)
    images = torch.randn(case.batch_size, 3, side, side)
    images = images.to(memory_format=layout)
    labels = torch.randint(classes, (case.batch_size,))
    network = torch.compile(model) if compiled else model
    half = torch.autocast("cpu", torch.bfloat16, case.dtype == "bfloat16")
    if case.mode == "infer":
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
        "ours": ours(case),
        "timm NCHW": timms(case, channels_last=False),
        "timm NHWC": timms(case, channels_last=True),
    }
    if compiled:
        steps["timm NHWC compiled"] = timms(case, True, compiled=True)
    return steps


def take_turns(steps, rounds, warmup, clock=time.perf_counter):
    """Times every step `rounds` times, one after the other.

    Args:
        steps: Dictionary from names to functions without arguments.
        rounds: Integer, how often each is timed.
        warmup: Integer, how often each runs before.
        clock: Function that gives the time in seconds.

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
            f"| {r['model']} | {r['mode']} | {r['dtype']} | {r['batch_size']} "
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

    cpu = platform.processor()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        facts = dict(
            (part.strip() for part in line.split(":", 1))
            for line in cpuinfo.read_text().split("\n\n")[0].splitlines()
        )
        cpu = {
            key: facts.get(key)
            for key in ("model name", "cpu family", "model", "flags")
        }
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "cores_allowed": sorted(os.sched_getaffinity(0)),
        "load_average": os.getloadavg(),
        "threads": FLAGS.threads,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def write_json(path, content):
    """Writes beside `path`, then renames: no reader sees half a file."""
    path = pathlib.Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(path)


def limit_threads(threads):
    """Gives TensorFlow and PyTorch `threads` threads each.

    Args:
        threads: Integer.

    Raises:
        ImportError: If PyTorch or timm is missing.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import tensorflow as tf

    try:
        import timm  # noqa: F401
        import torch
    except ImportError as error:
        raise ImportError(
            "The benchmark compares with timm and needs torch and timm: "
            "`pip install torch timm`."
        ) from error
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    torch.set_num_threads(threads)


def main(_):
    """Times every case and writes the JSON file after each of them."""
    limit_threads(FLAGS.threads)
    results = []
    for name in FLAGS.model:
        for mode in FLAGS.mode:
            for dtype in FLAGS.dtype:
                batch_size = FLAGS.batch_size or BATCH[name]
                case = Case(name, mode, dtype, batch_size)
                seconds = take_turns(
                    contestants(case, FLAGS.compile), FLAGS.rounds, FLAGS.warmup
                )
                results.append(summarise(case, seconds))
                print(table(results[-1:]).splitlines()[-1], flush=True)
                content = {"machine": machine(), "results": results}
                write_json(FLAGS.out, content)
    print(table(results))


if __name__ == "__main__":
    app.run(main)
