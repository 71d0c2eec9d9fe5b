"""Compares ConvMixer with other architectures of like size, trained alike.

    python recipes/compare.py --data FOLDER --output runs/compare

FOLDER has train/CLASS/*.png and test/CLASS/*.png (or .jpg), or is the name
`cifar10` of tensorflow-datasets. The contestants: a ResNet and MobileNetV3 from
keras.applications, a ViT from KerasHub (`pip install keras-hub`; without it,
`--models resnet,mobilenet,mixer`), an MLP-Mixer. What is changed about them for
small images and to be of a size is in `contestants.py`. Each gets the width at
which it has about as many parameters as the ConvMixer. All are trained on the
same images with the same augmentation, optimizer, schedule and epochs.

Ends in a table, `compare.json`, `compare.csv` and `compare.png`: parameters,
multiply-accumulates, images per second, accuracy. A comparison that was stopped
goes on with the same command.

Result: `results/compare.json` and beside it, of one epoch and one seed,

    python recipes/compare.py --data FOLDER --epochs 1 --threads 1

Time: a quarter of an hour of one core. After one epoch ConvMixer-160/6 has
66.1 %, the ResNet 57.1 %, MobileNetV3 48.8 %, the MLP-Mixer 47.1 %, the ViT
44.1 %. That is who learns fastest from little, no order of what they can reach:
transformers want many more epochs, the learning rate was tuned for none of
them, and the ConvMixer, on smaller patches, spends 2.4 to 28 times as many
multiply-accumulates.
"""

import dataclasses
import functools
import statistics

import contest as contests
import keras
import launch
import matplotlib.figure
import run_flags
import tensorflow as tf
from absl import flags
from absl import logging
from contestants import FEATURES
from contestants import WIDTHS
from contestants import check_keras_hub
from contestants import classifier
from contestants import closest_width

from convmixer_tf import ConvMixer
from convmixer_tf.files import replaced
from convmixer_tf.timing import CLOCKS
from convmixer_tf.timing import take_turns
from convmixer_tf.training import make_strategy
from convmixer_tf.training.step import Engine
from convmixer_tf.training.strategy import resolve_precision

REFERENCE = "convmixer"
TIMED_BATCH = 64  # images

flags.adopt_module_key_flags(contests)
flags.adopt_module_key_flags(run_flags)
_MODELS = flags.DEFINE_list(
    "models", list(FEATURES), "What to compare with the ConvMixer."
)
_DIM = flags.DEFINE_integer("dim", 160, "Width of the ConvMixer.", 1)
_DEPTH = flags.DEFINE_integer(
    "depth", 6, "Blocks of the ConvMixer, the ViT and the MLP-Mixer.", 1
)
_KERNEL_SIZE = flags.DEFINE_integer("kernel_size", 5, "Of the ConvMixer.")
_PATCH_SIZE = flags.DEFINE_integer("patch_size", 2, "Of the ConvMixer.")
_TOKEN_SIZE = flags.DEFINE_integer(
    "token_size", 4, "Patch size of the ViT and the MLP-Mixer."
)
_ROUNDS = flags.DEFINE_integer("rounds", 11, "Timed steps of each.", 3)
flags.set_default(contests.OUTPUT, "runs/compare")


def check_flags():
    """Raises what is wrong with the flags."""
    unknown = sorted(set(_MODELS.value) - set(FEATURES))
    if unknown:
        raise ValueError(
            f"--models knows {', '.join(FEATURES)}. "
            f"Received: {', '.join(unknown)}"
        )
    contests.check_geometry(_PATCH_SIZE.value, _KERNEL_SIZE.value)
    contests.check_geometry(_TOKEN_SIZE.value)
    if "vit" in _MODELS.value:
        check_keras_hub()


def convmixer(contest):
    """Describes the ConvMixer that the flags name, as a `Contestant`."""
    settings = {
        "width": _DIM.value,
        "depth": _DEPTH.value,
        "kernel_size": _KERNEL_SIZE.value,
        "patch_size": _PATCH_SIZE.value,
    }

    def build(activation):
        return ConvMixer(
            *settings.values(),
            input_shape=contest.input_shape,
            classes=contest.classes,
            classifier_activation=activation,
        )

    return contests.Contestant(REFERENCE, settings, build)


def opponent(contest, name, target):
    """Describes another model of a given size.

    Args:
        contest: A `Contest`.
        name: One of `FEATURES`.
        target: Integer, the number of trainable parameters to come close to.

    Returns:
        A `Contestant`.
    """
    fixed = {}
    if name in ("vit", "mixer"):
        fixed = {"depth": _DEPTH.value, "patch_size": _TOKEN_SIZE.value}

    def build(width, activation):
        features = functools.partial(FEATURES[name], width=width, **fixed)
        return classifier(
            features, contest.input_shape, contest.classes, activation, name
        )

    width = closest_width(
        lambda width: contests.trainable_parameters(build(width, None)),
        WIDTHS[name],
        target,
    )
    return contests.Contestant(
        name, {"width": width, **fixed}, functools.partial(build, width)
    )


def measure_speed(contest, contestants):
    """Times inference and training, the contestants taking turns.

    On a CPU the clock is the process's, so that other processes don't matter.

    Args:
        contest: A `Contest`.
        contestants: List of `Contestant`, the ConvMixer among them.

    Returns:
        List of a dictionary for each: images per second, and their ratio to
        the ConvMixer's. And a dictionary of how they were measured.
    """
    clock = "wall" if tf.config.list_physical_devices("GPU") else "cpu"
    steps = {"inference": {}, "training": {}}
    for contestant in contestants:
        infer, train = _steps(contest, contestant)
        steps["inference"][contestant.name] = infer
        steps["training"][contestant.name] = train
    rows = [{} for _ in contestants]
    for kind, runs in steps.items():
        seconds = take_turns(runs, _ROUNDS.value, 2, CLOCKS[clock])
        rates = {
            name: TIMED_BATCH / statistics.median(times)
            for name, times in seconds.items()
        }
        for row, contestant in zip(rows, contestants, strict=True):
            rate = rates[contestant.name]
            row[f"{kind}_images_per_second"] = rate
            row[f"{kind}_ratio"] = rate / rates[REFERENCE]
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    return rows, {
        "clock": clock,
        "threads": threads or "one for each core",
        "batch_size": TIMED_BATCH,
        "rounds": _ROUNDS.value,
    }


def _steps(contest, contestant):
    """Builds functions that infer and train on a batch, each to its end."""
    config = dataclasses.replace(
        contest.config, batch_size=TIMED_BATCH, accumulation_steps=1
    )
    strategy = make_strategy("one")
    with strategy.scope():
        model = _in_precision(config.precision, contestant.build)
        engine = Engine(config, model, strategy)
    images = tf.random.uniform((TIMED_BATCH, *contest.input_shape), 0, 255)
    labels = tf.zeros(TIMED_BATCH, tf.int32)
    infer = tf.function(lambda: model(images, training=False))
    return (
        lambda: infer().numpy(),
        lambda: engine.step([(images, labels)])["loss"].numpy(),
    )


def _in_precision(precision, build):
    old = keras.config.dtype_policy()
    keras.config.set_dtype_policy(resolve_precision(precision))
    try:
        return build(None)
    finally:
        keras.config.set_dtype_policy(old)


def draw(path, rows):
    """Draws accuracy against what it costs, as a PNG."""
    panels = {
        "million multiply-accumulates": [row["macs"] / 1e6 for row in rows],
        "thousand parameters": [row["parameters"] / 1e3 for row in rows],
        "images/s, inference": [
            row["inference_images_per_second"] for row in rows
        ],
        "images/s, training": [
            row["training_images_per_second"] for row in rows
        ],
    }
    top1 = [100 * row["top1"] for row in rows]
    figure = matplotlib.figure.Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True)
    for ax, (label, values) in zip(axes.flat, panels.items(), strict=True):
        ax.scatter(values, top1, c=[f"C{i}" for i in range(len(rows))], s=60)
        for row, x, y in zip(rows, values, top1, strict=True):
            left = x > max(values) / 2
            ax.annotate(
                row["name"],
                (x, y),
                xytext=(-8 if left else 8, 0),
                textcoords="offset points",
                ha="right" if left else "left",
                va="center",
            )
        ax.set(xlabel=label, xlim=(0, 1.15 * max(values)))
        ax.grid(alpha=0.3)
        ax.set_axisbelow(True)
        ax.margins(y=0.15)
    for ax in axes[:, 0]:
        ax.set_ylabel("top-1, %")
    with replaced(path) as unfinished:
        figure.savefig(unfinished, dpi=110)


def table(rows):
    """Formats the comparison as Markdown."""
    return contests.markdown(
        rows,
        {
            "model": lambda row: row["name"],
            "width": lambda row: str(row["width"]),
            "parameters": lambda row: f"{row['parameters']:,}",
            "million MACs": lambda row: f"{row['macs'] / 1e6:.1f}",
            "inference": lambda row: f"{row['inference_ratio']:.2f} x",
            "training": lambda row: f"{row['training_ratio']:.2f} x",
            "top-1": lambda row: f"{row['top1']:.2%}",
            "top-5": lambda row: f"{row['top5']:.2%}",
            "training loss": lambda row: f"{row['train_loss']:.3f}",
        },
    )


def main(argv):
    """Compares as the flags say."""
    run_flags.begin(argv)
    check_flags()
    contest = contests.open_contest()
    reference = convmixer(contest)
    target = contests.trainable_parameters(reference.build(None))
    contestants = [reference]
    for name in dict.fromkeys(_MODELS.value):
        contestants.append(opponent(contest, name, target))
        logging.info("%s: %s", name, contestants[-1].settings)
    rows = contests.train_all(contest, contestants)
    speeds, timing = measure_speed(contest, contestants)
    for row, speed in zip(rows, speeds, strict=True):
        row.update(speed)
    contests.write_results(contest, "compare", rows, {"timing": timing})
    draw(contest.folder / "compare.png", rows)
    print(f"{table(rows)}\n\nspeed relative to {REFERENCE}, {timing}")
    print(contest.folder / "compare.png")


if __name__ == "__main__":
    launch.run(main)
