"""Makes a finished CIFAR-10 run the weights that come with the package.

    python recipes/package_cifar10.py --run runs/cifar10 --data FOLDER

The run is one of `train_cifar10.py` or `train_cifar10_jax.py`, of
ConvMixer-256/8 with 5 x 5 kernels on 2 x 2 patches; if it started from the
model of another run (`--weights`), that run belongs to it, and so on. Writes
to `convmixer_tf/weights/packaged/` the weights in float16, what was measured
of them, in JSON, and a model card; and to `recipes/results/train_cifar10/` the
log, the settings and the environment of the runs, each in a folder: `1`, the
first, `2`, ... The accuracy is measured here, on all test images, before and
after rounding to float16.

Time: two forward passes over the test images, a minute on a core.
"""

import hashlib
import json
import pathlib
import shlex
import shutil
import tempfile

import launch
import numpy as np
import run_flags
from absl import flags
from absl import logging

from convmixer_tf import ConvMixer256_8
from convmixer_tf import data
from convmixer_tf.files import check_destination
from convmixer_tf.files import dump_json
from convmixer_tf.files import replaced
from convmixer_tf.models import load_model
from convmixer_tf.models import read_arguments
from convmixer_tf.models import read_class_names
from convmixer_tf.preprocessing import CIFAR10_CLASSES
from convmixer_tf.preprocessing import CIFAR10_MEAN
from convmixer_tf.preprocessing import CIFAR10_STD
from convmixer_tf.training import evaluate_function
from convmixer_tf.weights import PUBLISHED_WEIGHTS
from convmixer_tf.weights import timm_state_dict
from convmixer_tf.weights.packaged import FOLDER
from convmixer_tf.weights.saving import write_safetensors

NAME = "convmixer_256_8"
_LIBRARIES = {"tensorflow": "TensorFlow", "jax": "JAX", "keras": "Keras"}
RECORDS = ("log.csv", "summary.json", "config.json", "environment.json")

_RUN = flags.DEFINE_string("run", "runs/cifar10", "Folder of the run.")
_DATA = flags.DEFINE_string(
    "data", "cifar10", "Folder, or name in tensorflow-datasets."
)
_SPLIT = flags.DEFINE_string("split", "test", "Which part of it to measure on.")
_REMARK = flags.DEFINE_string(
    "remark", "", "A sentence about the images, to stand beside the accuracy."
)
_OUTPUT = flags.DEFINE_string(
    "output", str(FOLDER), "Folder for weights, figures and card."
)
_RECORD = flags.DEFINE_string(
    "record",
    str(pathlib.Path(__file__).parent / "results" / "train_cifar10"),
    "Folder for the run's own files.",
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace what is there.")


def check_run(run):
    """Checks that a run is finished, and of the model that is packaged.

    Args:
        run: Path of the run's folder.

    Raises:
        FileNotFoundError: If it has not ended.
        ValueError: If it is of another model or of other classes.
    """
    missing = [x for x in ("model.keras", *RECORDS) if not (run / x).is_file()]
    if missing:
        raise FileNotFoundError(
            f"The run in `{run}` has not ended: there is no "
            f"{', '.join(missing)}. The command that began it goes on with it."
        )
    found = read_arguments(run / "model.keras")
    facts = PUBLISHED_WEIGHTS[NAME]
    sizes = ("dim", "depth", "kernel_size", "patch_size")
    expected = {size: getattr(facts, size) for size in sizes}
    received = {size: found[size] for size in sizes}
    names = read_class_names(run / "model.keras")
    if received != expected or names != CIFAR10_CLASSES:
        raise ValueError(
            f"The run must be of a ConvMixer with {expected} and the classes "
            f"{', '.join(CIFAR10_CLASSES)}. Received: {received}, "
            f"{', '.join(names or ['no names'])}"
        )
    pixels = [*found.get("mean", [0]), *found.get("std", [0])]
    if not np.allclose(pixels, [*CIFAR10_MEAN, *CIFAR10_STD], atol=1e-6):
        raise ValueError(
            "The run's model must normalise with "
            f"mean={CIFAR10_MEAN}, std={CIFAR10_STD}. Received: {pixels}"
        )


def with_predecessors(run):
    """Lists a run, and before it those that its weights come from.

    Args:
        run: Path of the run's folder.

    Returns:
        List of the folders' paths, the first run first.

    Raises:
        FileNotFoundError: If there is no such run.
        ValueError: If a run started from other weights than those of a run.
    """
    runs = [run]
    while start := _settings(runs[0]).get("weights"):
        start = pathlib.Path(start)
        if start.name != "model.keras":
            raise ValueError(
                f"The run in `{runs[0]}` must have started from random weights "
                f"or from the model.keras of another. Received: {start}"
            )
        check_run(start.parent)
        runs.insert(0, start.parent)
    return runs


def _settings(run):
    return json.loads((run / "config.json").read_text())


def measure(model, dataset):
    """Measures a model on all images.

    Args:
        model: A `keras.Model`.
        dataset: What `data.open_dataset` returns.

    Returns:
        `Scores`.
    """
    facts = PUBLISHED_WEIGHTS[NAME]
    batches = data.evaluation_batches(
        dataset, facts.image_size, 250, crop_fraction=facts.crop_fraction
    )
    return evaluate_function(model.predict_on_batch, batches, facts.classes)


def write_weights(model, path):
    """Writes a model's weights, rounded to float16.

    Args:
        model: A `keras.Model`.
        path: Path of the `.safetensors` file, which is replaced.

    Raises:
        ValueError: If a weight is too large.
    """
    with np.errstate(over="ignore"):  # Which is told below.
        rounded = {
            name: value if value.dtype.kind == "i" else value.astype("float16")
            for name, value in timm_state_dict(model).items()
        }
    large = [name for name, x in rounded.items() if not np.isfinite(x).all()]
    if large:
        raise ValueError(f"float16 can't hold {', '.join(large[:5])}.")
    write_safetensors(rounded, path)


def collect(runs, path, exact, rounded):
    """Collects what there is to say about the weights.

    Args:
        runs: Paths of the runs' folders.
        path: Path of the `.safetensors` file.
        exact: `Scores` of the run's own model.
        rounded: `Scores` of the weights in the file.

    Returns:
        Dictionary, ready for JSON.
    """
    content = pathlib.Path(path).read_bytes()
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        **rounded.summary(),
        "per_class": dict(
            zip(CIFAR10_CLASSES, map(float, rounded.per_class), strict=True)
        ),
        "top1_in_float32": exact.top1,
        "remark": _REMARK.value,
        "training": [describe(run) for run in runs],
    }


def describe(run):
    """Collects how a run trained.

    Args:
        run: Path of the run's folder.

    Returns:
        Dictionary, ready for JSON.
    """
    summary, config, environment = (
        json.loads((run / name).read_text()) for name in RECORDS[1:]
    )
    names = ("epochs", "batch_size", "learning_rate", "weight_decay", "seed")
    script, *arguments = environment["command"]
    script = f"recipes/{pathlib.PurePath(script).name}"
    return {
        "command": shlex.join(["python", script, *map(_shorten, arguments)]),
        **{name: config[name] for name in names},
        "precision": summary["precision"],
        "hours": summary["seconds"] / 3600,
        **{
            name: environment[name]
            for name in _LIBRARIES
            if name in environment
        },
    }


def _by(run):
    """Names the libraries that a run was made with."""
    return " and ".join(
        f"{title} {run[name]}"
        for name, title in _LIBRARIES.items()
        if name in run
    )


_TRAINING = """\
{number}. `{command}`
   {epochs} epochs in batches of {batch_size}, peak rate {learning_rate}, \
weight decay {weight_decay},
   seed {seed}, {precision}, {hours:.1f} hours with {libraries}
"""

_CARD = """\
# ConvMixer-256/8, CIFAR-10

`ConvMixer256_8(weights="cifar10")` of convmixer_tf. Classifies colour images
of 32 x 32 pixels as one of

{classes}.

| | |
|---|---|
| architecture | ConvMixer, width 256, 8 blocks, 5 x 5 kernels, 2 x 2 patches, \
exact GELU |
| trainable parameters | 594,186 |
| file | {bytes:,} bytes, float16; computed with in float32 |
| test images | {images:,} |
| top-1 | {top1:.2%} |
| top-5 | {top5:.2%} |
| top-1 before rounding to float16 | {top1_in_float32:.2%} |
| licence | MIT |

{remark}

**Input**: pixels in [0, 255]; the model normalises them. Other images than
CIFAR-10's are cut to a square and brought to 32 x 32 pixels, which leaves
little of a photograph.

**Training**: on CIFAR-10's 50,000 training images, with AdamW:

{training}
The logs are in the repository, in `recipes/results/train_cifar10/`.

**Right by class**:

| class | top-1 |
|---|---|
{per_class}

**Limits**: it knows ten classes and gives one of them to every image. It is
for trying things out, and a start for fine-tuning, not for decisions.

Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009.
Trockman and Kolter: Patches Are All You Need?, arXiv 2201.09792.
"""


def write_card(facts):
    """Writes the model card.

    Args:
        facts: What `collect` returns.

    Returns:
        String, Markdown.
    """
    rows = [f"| {name} | {x:.1%} |" for name, x in facts["per_class"].items()]
    return _CARD.format(
        **{
            **facts,
            "training": "".join(
                _TRAINING.format(number=number, libraries=_by(run), **run)
                for number, run in enumerate(facts["training"], 1)
            ),
            "classes": ", ".join(CIFAR10_CLASSES),
            "per_class": "\n".join(rows),
        }
    ).replace("\n\n\n", "\n\n")


def keep_records(run, folder):
    """Copies a run's log, settings and environment.

    Args:
        run: Path of the run's folder.
        folder: Path of the folder to copy to, which is made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in RECORDS:
        shutil.copyfile(run / name, folder / name)
    # Which machine it was, and where its files lay, is nobody's business.
    environment = json.loads((run / "environment.json").read_text())
    environment.pop("platform", None)
    environment["command"] = [_shorten(x) for x in environment["command"]]
    dump_json(folder / "environment.json", environment)
    config = _settings(run)
    if config.get("weights"):
        config["weights"] = _shorten(config["weights"])
        dump_json(folder / "config.json", config)


def _shorten(argument):
    """Cuts an absolute path, after `--flag=` or not; all else stays."""
    flag, separator, value = argument.rpartition("=")
    path = pathlib.PurePath(value)
    if not path.is_absolute():
        return argument
    parts = path.parts[-2:] if path.name == "model.keras" else path.parts[-1:]
    return flag + separator + "/".join(parts)


def main(argv):
    """Packages the run that the flags name."""
    run_flags.begin(argv)
    run, output = pathlib.Path(_RUN.value), pathlib.Path(_OUTPUT.value)
    check_run(run)
    runs = with_predecessors(run)
    output.mkdir(parents=True, exist_ok=True)
    paths = {x: output / f"{NAME}.{x}" for x in ("safetensors", "json", "md")}
    for suffix, path in paths.items():
        check_destination(path, (suffix,), _OVERWRITE.value)
    (dataset,) = run_flags.open_datasets(_DATA.value, _SPLIT.value)
    if dataset.class_names != CIFAR10_CLASSES:
        raise ValueError(
            f"--data must be of the classes {', '.join(CIFAR10_CLASSES)}. "
            f"Received: {', '.join(dataset.class_names)}"
        )
    model = load_model(run / "model.keras")
    with tempfile.TemporaryDirectory() as folder:
        rounded = pathlib.Path(folder) / f"{NAME}.safetensors"
        write_weights(model, rounded)
        logging.info("Measuring on %d images, twice", len(dataset))
        scores = measure(ConvMixer256_8(weights=rounded), dataset)
        facts = collect(runs, rounded, measure(model, dataset), scores)
        card = write_card(facts)
        with replaced(paths["safetensors"]) as unfinished:
            shutil.copyfile(rounded, unfinished)
    with replaced(paths["md"]) as unfinished:
        pathlib.Path(unfinished).write_text(card, encoding="utf-8")
    dump_json(paths["json"], facts)
    for number, one in enumerate(runs, 1):
        keep_records(one, pathlib.Path(_RECORD.value) / str(number))
    print(
        f"{facts['images']:,} images: top-1 {facts['top1']:.2%}, before "
        f"rounding to float16 {facts['top1_in_float32']:.2%}",
        *paths.values(),
        _RECORD.value,
        sep="\n",
    )


if __name__ == "__main__":
    launch.run(main)
