"""Compares ConvMixer with other architectures of similar size.

    python recipes/compare.py --data FOLDER --output runs/compare

FOLDER has train/CLASS/*.png and test/CLASS/*.png (or .jpg), or is the name
`cifar10` of tensorflow-datasets. The other architectures are a ResNet and
MobileNetV3 from keras.applications, a ViT from KerasHub (`pip install
keras-hub`; without it, pass `--models resnet,mobilenet,mixer`) and an
MLP-Mixer. The width of each is chosen so that it has about as many parameters
as the ConvMixer. All are trained on the same images with the same augmentation,
optimizer, schedule and epochs.

With `--trend`, several ConvMixers are trained instead. One argument differs in
each:

    python recipes/compare.py --data FOLDER --dim 64 --depth 4 \
        --trend patch_size=2,4,8 --trend dim=32,64,128

The script writes a table, `compare.json` and `compare.png` to the output
folder. To resume a stopped comparison, run the same command.

Result: `results/compare.json`, with `--epochs 1 --threads 1` and one seed, in a
quarter of an hour on one core. After one epoch, ConvMixer-160/6 has 66.1 %
top-1, the ResNet 57.1 %, MobileNetV3 48.8 %, the MLP-Mixer 47.1 % and the ViT
44.1 %. This is not their final accuracy: transformers need many more epochs,
and the learning rate was not tuned. The ConvMixer has smaller patches and
computes 2.4 to 28 times as many multiply-accumulates. `results/sweep.json` has
the trends, with `--epochs 1 --steps_per_epoch 390`.
"""

import bisect
import dataclasses
import functools
import importlib.util
import math
import pathlib
import statistics
from collections.abc import Callable

import keras
import launch
import matplotlib.figure
import numpy as np
import run_flags
import tensorflow as tf
from absl import flags
from absl import logging
from keras import layers

from convmixer_tf import ConvMixer
from convmixer_tf import data
from convmixer_tf.analysis import count_macs
from convmixer_tf.files import dump_json
from convmixer_tf.files import replaced
from convmixer_tf.preprocessing import IMAGENET_MEAN
from convmixer_tf.preprocessing import IMAGENET_STD
from convmixer_tf.timing import CLOCKS
from convmixer_tf.timing import machine
from convmixer_tf.timing import take_turns
from convmixer_tf.training import TrainConfig
from convmixer_tf.training import steps_per_epoch
from convmixer_tf.training import train_classifier

HEADS = 4  # of the ViT
TIMED_BATCH = 64  # images
# The usual augmentation of small networks on CIFAR-10 since ResNet: shifts by
# up to 4 pixels, and flips.
SHIFT = data.Augmentation(crop=data.PadAndCrop())

flags.adopt_module_key_flags(run_flags)
_DATA = flags.DEFINE_string(
    "data", "cifar10", "Folder, or name in tensorflow-datasets."
)
_OUTPUT = flags.DEFINE_string("output", "runs/compare", "Folder of all runs.")
_MODELS = flags.DEFINE_list(
    "models",
    ["resnet", "mobilenet", "vit", "mixer"],
    "Architectures to compare with the ConvMixer.",
)
_TREND = flags.DEFINE_multi_string(
    "trend",
    [],
    "Argument of ConvMixer and its values, such as dim=32,64,128; repeatable.",
)
_DIM = flags.DEFINE_integer("dim", 160, "Width of the ConvMixer.", 1)
_DEPTH = flags.DEFINE_integer(
    "depth", 6, "Blocks of the ConvMixer, the ViT and the MLP-Mixer.", 1
)
_KERNEL_SIZE = flags.DEFINE_integer("kernel_size", 5, "Of ConvMixer, patches.")
_PATCH_SIZE = flags.DEFINE_integer("patch_size", 2, "Of the ConvMixer.")
_TOKEN_SIZE = flags.DEFINE_integer(
    "token_size", 4, "Patch size of the ViT and the MLP-Mixer."
)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 32, "Side, in pixels.", 1)
_EPOCHS = flags.DEFINE_integer("epochs", 5, "Passes over the images.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images per update.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.002, "Peak rate.")
_WEIGHT_DECAY = flags.DEFINE_float("weight_decay", 0.02, "Weight decay.")
_THREADS = flags.DEFINE_integer(
    "threads", None, "TensorFlow's threads. Default: one per core.", 1
)
_ROUNDS = flags.DEFINE_integer("rounds", 11, "Timed steps per model.", 3)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A model to train: its name, its settings and its builder."""

    name: str
    settings: dict
    build: Callable  # Takes a `classifier_activation`.


def resnet(image, width):
    """Builds ResNet50 up to its second stage, narrower, with a stride-1 stem.

    keras.applications builds ResNets of one width only, so its layers are
    copied with `width` times the filters. The feature maps of a 32-pixel image
    have 16 x 16 and 8 x 8 pixels.
    """
    x = _copy(_half_resnet50(image.shape[1:]), width, "conv1_conv")(image)
    return layers.GlobalAveragePooling2D(name="avg_pool")(x)


@functools.cache
def _half_resnet50(shape):
    whole = keras.applications.ResNet50(
        include_top=False, weights=None, input_shape=shape
    )
    return keras.Model(whole.input, whole.get_layer("conv3_block4_out").output)


def mobilenet(image, width):
    """Builds MobileNetV3Small with `alpha=width` and a stride-1 stem.

    The last feature maps of a 32-pixel image have 2 x 2 pixels. The head is
    only a pooling layer, without the layer of 1,024 features.
    """
    body = keras.applications.MobileNetV3Small(
        include_top=False,
        weights=None,
        input_shape=image.shape[1:],
        alpha=width,
        include_preprocessing=False,
    )
    x = _copy(body, 1, "conv")(image)
    return layers.GlobalAveragePooling2D(name="avg_pool")(x)


def _copy(model, width, stem):
    """Copies a model with other numbers of filters and a stride-1 stem."""

    def copy(layer):
        config = layer.get_config()
        if "filters" in config:
            config["filters"] = max(1, round(width * config["filters"]))
        if "momentum" in config:
            # MobileNetV3's 0.999 is too slow for a few thousand updates.
            config["momentum"] = 0.9
        if layer.name == stem:
            config["strides"] = 1
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=copy)


def vit(image, width, depth, patch_size):
    """Builds a KerasHub ViT with a class token and MLPs of 4 x the width."""
    import keras_hub

    backbone = keras_hub.models.ViTBackbone(
        image_shape=tuple(image.shape[1:]),
        patch_size=patch_size,
        num_layers=depth,
        num_heads=HEADS,
        hidden_dim=width,
        mlp_dim=4 * width,
    )
    return backbone(image)[:, 0]


def mixer(image, width, depth, patch_size):
    """Builds an MLP-Mixer (Tolstikhin et al., arxiv.org/abs/2105.01601).

    The hidden layers have the relative sizes of the paper's models: half the
    width for mixing patches, four times the width for mixing channels.
    """

    def norm(x, name):
        return layers.LayerNormalization(epsilon=1e-6, name=name)(x)

    def mlp(x, hidden, outputs, name):
        x = layers.Dense(hidden, "gelu", name=f"{name}_hidden")(x)
        return layers.Dense(outputs, name=f"{name}_output")(x)

    x = layers.Conv2D(width, patch_size, patch_size, name="patch_embed")(image)
    patches = x.shape[1] * x.shape[2]
    x = layers.Reshape((patches, width), name="patches")(x)
    for i in range(depth):
        name = f"block_{i}"
        y = norm(x, f"{name}_patches_norm")
        y = layers.Permute((2, 1), name=f"{name}_to_patches")(y)
        y = mlp(y, width // 2, patches, f"{name}_patches")
        y = layers.Permute((2, 1), name=f"{name}_to_channels")(y)
        x = layers.Add(name=f"{name}_patches_add")([x, y])
        y = norm(x, f"{name}_channels_norm")
        y = mlp(y, 4 * width, width, f"{name}_channels")
        x = layers.Add(name=f"{name}_channels_add")([x, y])
    x = norm(x, "norm")
    return layers.GlobalAveragePooling1D(name="avg_pool")(x)


def _multiples(step):
    """Lists multiples of a step, with gaps of at most 4 % or one step.

    The middle one is small, so that a search builds its first model quickly.
    """
    return [
        round(step * i, 2) for i in sorted({round(1.04**i) for i in range(160)})
    ]


# Function from normalized images to features, and the candidate widths.
ARCHITECTURES = {
    "resnet": (resnet, _multiples(0.01)),
    "mobilenet": (mobilenet, _multiples(0.02)),
    "vit": (vit, _multiples(HEADS)),
    "mixer": (mixer, _multiples(2)),
}


def classifier(features, input_shape, classes, activation, name):
    """Builds a classifier of pixels in [0, 255] from a feature function."""
    image = keras.Input(input_shape, name="image")
    x = layers.Normalization(
        mean=255 * np.array(IMAGENET_MEAN),
        variance=np.square(255 * np.array(IMAGENET_STD)),
        dtype="float32",
        name="normalization",
    )(image)
    outputs = layers.Dense(
        classes, activation, dtype="float32", name="predictions"
    )(features(x))
    return keras.Model(image, outputs, name=name)


def closest_width(count, widths, target):
    """Finds the width whose number of parameters is closest to a target.

    Args:
        count: Increasing function from a width to a number of parameters.
        widths: Sequence of widths, in ascending order.
        target: Integer.
    """
    count = functools.cache(count)
    i = bisect.bisect_left(widths, target, key=count)
    return min(
        widths[max(i - 1, 0) : i + 1], key=lambda w: abs(count(w) - target)
    )


def trainable_parameters(model):
    """Counts a model's trainable parameters."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def convmixer_entry(name, settings, classes):
    """Creates the entry of a ConvMixer from its first arguments."""
    shape = (_IMAGE_SIZE.value, _IMAGE_SIZE.value, 3)

    def build(activation):
        return ConvMixer(
            **settings,
            input_shape=shape,
            classes=classes,
            classifier_activation=activation,
        )

    return Entry(name, settings, build)


def other_entry(name, classes, target):
    """Creates the entry of another model with about `target` parameters."""
    features, widths = ARCHITECTURES[name]
    shape = (_IMAGE_SIZE.value, _IMAGE_SIZE.value, 3)
    fixed = {}
    if name in ("vit", "mixer"):
        fixed = {"depth": _DEPTH.value, "patch_size": _TOKEN_SIZE.value}

    def build(width, activation):
        some = functools.partial(features, width=width, **fixed)
        return classifier(some, shape, classes, activation, name)

    width = closest_width(
        lambda width: trainable_parameters(build(width, None)), widths, target
    )
    return Entry(
        name, {"width": width, **fixed}, functools.partial(build, width)
    )


def base():
    """Returns the first arguments of the ConvMixer in the flags."""
    flag_values = (_DIM, _DEPTH, _KERNEL_SIZE, _PATCH_SIZE)
    return {flag.name: flag.value for flag in flag_values}


def trends():
    """Parses `--trend`.

    Returns:
        Dictionary from arguments of `ConvMixer` to lists of integers that
        include the base value.

    Raises:
        ValueError: If a flag is wrong.
    """
    found = {}
    for text in _TREND.value:
        name, _, values = text.partition("=")
        values = values.split(",")
        if name not in base() or not all(
            value.isdecimal() and int(value) for value in values
        ):
            raise ValueError(
                f"`--trend` must be one of {', '.join(base())}, then = and "
                "positive integers separated by commas, such as dim=32,64. "
                f"Received: {text}"
            )
        found[name] = sorted({*map(int, values), base()[name]})
    return found


def check_flags():
    """Raises an error for invalid flags, before data is opened."""
    unknown = sorted(set(_MODELS.value) - set(ARCHITECTURES))
    if unknown:
        raise ValueError(
            f"`--models` must be a list of {', '.join(ARCHITECTURES)}. "
            f"Received: {', '.join(unknown)}"
        )
    found = trends()
    check_geometry(_PATCH_SIZE.value, _KERNEL_SIZE.value)
    for name, values in found.items():
        for value in values:
            model = {**base(), name: value}
            check_geometry(model["patch_size"], model["kernel_size"])
    if not found:
        check_geometry(_TOKEN_SIZE.value)
        missing = importlib.util.find_spec("keras_hub") is None
        if "vit" in _MODELS.value and missing:
            raise ImportError(
                "The ViT needs KerasHub. `pip install keras-hub`, or pass "
                "`--models resnet,mobilenet,mixer`."
            )


def check_geometry(patch_size, kernel_size=1):
    """Raises an error unless patches and kernels fit the images."""
    image_size = _IMAGE_SIZE.value
    if patch_size < 1 or image_size % patch_size:
        raise ValueError(
            f"The patch size must divide the image size, {image_size} pixels. "
            f"Received: {patch_size}"
        )
    widest = 2 * (image_size // patch_size) - 1
    if not 1 <= kernel_size <= widest:
        raise ValueError(
            f"With {image_size // patch_size} patches a side, the kernel size "
            f"must be from 1 to {widest}. A larger kernel only adds padding. "
            f"Received: kernel size {kernel_size} with patch size {patch_size}"
        )


def entries(classes):
    """Lists the models to train, without duplicates."""
    if not _TREND.value:
        first = convmixer_entry("convmixer", base(), classes)
        target = trainable_parameters(first.build(None))
        names = dict.fromkeys(_MODELS.value)
        return [first, *(other_entry(x, classes, target) for x in names)]
    found = {}
    for trend, values in trends().items():
        for value in values:
            settings = {**base(), trend: value}
            name = trend_name(settings)
            found[name] = convmixer_entry(name, settings, classes)
    return list(found.values())


def trend_name(settings):
    """Names a ConvMixer after its arguments, for its folder."""
    return "convmixer_{dim}_{depth}_k{kernel_size}_p{patch_size}".format(
        **settings
    )


def train(entry, config, datasets, strategy):
    """Trains a model, or resumes its training, and returns its row."""
    logging.info("Training %s: %s", entry.name, entry.settings)
    model, summary = train_classifier(
        config,
        entry.build,
        *datasets,
        SHIFT,
        _IMAGE_SIZE.value,
        pathlib.Path(_OUTPUT.value) / entry.name,
        strategy,
        crop_fraction=1.0,
        notes={"model": entry.settings},
    )
    last = summary["last"]
    return {
        "name": entry.name,
        **entry.settings,
        "parameters": trainable_parameters(model),
        "macs": count_macs(model),
        **{x: last[x] for x in ("top1", "top5", "loss", "train_loss")},
        "training_seconds": summary["seconds"],
        "precision": summary["precision"],
    }


def add_speed(rows, models):
    """Times inference and training in turns and adds the ratios to the rows.

    On a CPU, processor time is used, which excludes other processes.
    """
    clock = "wall" if tf.config.list_physical_devices("GPU") else "cpu"
    runs = {"inference": {}, "training": {}}
    for row, build in zip(rows, models, strict=True):
        keras.config.set_dtype_policy(row["precision"])
        model = build(None)
        model.compile(
            keras.optimizers.AdamW(1e-4),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )
        images = tf.random.uniform(
            (TIMED_BATCH, *model.input_shape[1:]), 0, 255
        )
        labels = tf.zeros(TIMED_BATCH, tf.int32)
        name = row["name"]
        runs["inference"][name] = functools.partial(
            model.predict_on_batch, images
        )
        runs["training"][name] = functools.partial(
            model.train_on_batch, images, labels
        )
    keras.config.set_dtype_policy("float32")
    for kind, steps in runs.items():
        seconds = take_turns(steps, _ROUNDS.value, 2, CLOCKS[clock])
        rates = [TIMED_BATCH / statistics.median(x) for x in seconds.values()]
        for row, rate in zip(rows, rates, strict=True):
            row[f"{kind}_images_per_second"] = rate
            row[f"{kind}_ratio"] = rate / rates[0]


def draw_costs(path, rows):
    """Draws accuracy against costs as a PNG."""
    panels = {
        "million multiply-accumulates": [row["macs"] / 1e6 for row in rows],
        "thousand parameters": [row["parameters"] / 1e3 for row in rows],
        **{
            f"images/s, {kind}": [
                row[f"{kind}_images_per_second"] for row in rows
            ]
            for kind in ("inference", "training")
        },
    }
    figure = matplotlib.figure.Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True)
    for ax, (label, values) in zip(axes.flat, panels.items(), strict=True):
        for row, value in zip(rows, values, strict=True):
            ax.plot(value, 100 * row["top1"], "o", label=row["name"])
        ax.set(xlabel=label, ylabel="top-1, %", xlim=(0, None))
        ax.grid(alpha=0.3)
    axes[0, 0].legend()
    with replaced(path) as unfinished:
        figure.savefig(unfinished, dpi=110)


def draw_trends(path, rows):
    """Draws the accuracy of each trend as a PNG."""
    found = {row["trend"]: None for row in rows}
    figure = matplotlib.figure.Figure(
        figsize=(4.2 * len(found), 3.8), layout="constrained"
    )
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, found, strict=True):
        points = [row for row in rows if row["trend"] == name]
        values = [row[name] for row in points]
        axes.plot(values, [100 * row["top1"] for row in points], "o-")
        axes.set(xlabel=name, ylabel="top-1, %", xscale="log")
        axes.set_xticks(values, map(str, values), minor=False)
        axes.grid(alpha=0.3)
    with replaced(path) as unfinished:
        figure.savefig(unfinished, dpi=110)


def table(rows):
    """Formats the rows as a Markdown table."""
    columns = {
        "model": lambda row: row["name"],
        "trend": lambda row: row["trend"],
        "parameters": lambda row: f"{row['parameters']:,}",
        "million MACs": lambda row: f"{row['macs'] / 1e6:.1f}",
        "inference": lambda row: f"{row['inference_ratio']:.2f} x",
        "training": lambda row: f"{row['training_ratio']:.2f} x",
        "top-1": lambda row: f"{row['top1']:.2%}",
        "training loss": lambda row: f"{row['train_loss']:.3f}",
    }
    if "trend" in rows[0]:
        del columns["inference"], columns["training"]
    else:
        del columns["trend"]
    lines = [list(columns), ["---"] * len(columns)]
    lines += [[cell(row) for cell in columns.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv):
    """Runs the comparison."""
    launch.start(argv)
    check_flags()
    if _THREADS.value:
        tf.config.threading.set_intra_op_parallelism_threads(_THREADS.value)
        tf.config.threading.set_inter_op_parallelism_threads(_THREADS.value)
    strategy = run_flags.strategy()
    datasets = run_flags.open_datasets(_DATA.value, "train", "test")
    steps = steps_per_epoch(datasets[0], _BATCH_SIZE.value)
    config = TrainConfig(
        epochs=_EPOCHS.value,
        batch_size=_BATCH_SIZE.value,
        learning_rate=_LEARNING_RATE.value,
        schedule="cosine",
        warmup_epochs=_EPOCHS.value / 10,
        epsilon=1e-8,
        weight_decay=_WEIGHT_DECAY.value,
        **run_flags.settings(steps),
    )
    found = entries(len(datasets[0].class_names))
    rows = [train(entry, config, datasets, strategy) for entry in found]
    folder = pathlib.Path(_OUTPUT.value)
    if _TREND.value:
        by_name = {row["name"]: row for row in rows}
        rows = [
            {"trend": name, **by_name[trend_name({**base(), name: value})]}
            for name, values in trends().items()
            for value in values
        ]
        draw_trends(folder / "compare.png", rows)
    else:
        add_speed(rows, [entry.build for entry in found])
        draw_costs(folder / "compare.png", rows)
    content = {
        "config": dataclasses.asdict(config),
        "recipe": dataclasses.asdict(SHIFT),
        "images": [len(dataset) for dataset in datasets],
        "machine": machine(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "threads": _THREADS.value,
        "rows": rows,
    }
    dump_json(folder / "compare.json", content)
    print(table(rows))
    print(folder / "compare.png")


if __name__ == "__main__":
    launch.run(main)
