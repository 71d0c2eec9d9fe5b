"""Packages the weights of a finished CIFAR-10 run.

    python recipes/package_cifar10.py --run runs/cifar10 --data FOLDER

The run must be from `train_cifar10.py`, with ConvMixer-256/8, 5 x 5 kernels and
2 x 2 patches. If it started from the model of another run (`--weights`), repeat
`--run` with the first run first. The script writes the weights in float16, a
JSON file of measurements and a model card to `convmixer_tf/weights/packaged/`.
It writes the log, the settings and the environment of each run to
`recipes/results/train_cifar10/1`, `2`, ... The accuracy is measured on all test
images, before and after rounding to float16.

Time: two forward passes over the test images, a minute on one core.
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
from safetensors.numpy import save_file

from convmixer_tf import ConvMixer256_8
from convmixer_tf import data
from convmixer_tf.files import check_destination
from convmixer_tf.files import dump_json
from convmixer_tf.files import replaced
from convmixer_tf.files import write_text
from convmixer_tf.models import load_model
from convmixer_tf.models import open_model
from convmixer_tf.preprocessing import CIFAR10_CLASSES
from convmixer_tf.training import evaluate_function
from convmixer_tf.weights import PUBLISHED_WEIGHTS
from convmixer_tf.weights import timm_state_dict
from convmixer_tf.weights.packaged import FOLDER

NAME = "convmixer_256_8"
FACTS = PUBLISHED_WEIGHTS[NAME]
RECORDS = ("log.csv", "summary.json", "config.json", "environment.json")
CARD = """\
# ConvMixer-256/8, CIFAR-10

`ConvMixer256_8(weights="cifar10")` of convmixer_tf. It classifies color images
of 32 x 32 pixels as one of

{classes}.

| | |
|---|---|
| architecture | ConvMixer, width 256, 8 blocks, 5 x 5 kernels, 2 x 2 patches, \
exact GELU |
| trainable parameters | 594,186 |
| file | {bytes:,} bytes, float16; computations are in float32 |
| test images | {images:,} |
| top-1 | {top1:.2%} |
| top-5 | {top5:.2%} |
| top-1 before rounding to float16 | {top1_in_float32:.2%} |
| license | MIT |

{remark}

**Input**: pixels in [0, 255]; the model normalizes them. Images other than
CIFAR-10's are cropped to a square and resized to 32 x 32 pixels, which removes
most details of a photograph.

**Training**: on CIFAR-10's 50,000 training images, with AdamW:

{training}

The logs are in the repository, in `recipes/results/train_cifar10/`.

**Top-1 by class**:

| class | top-1 |
|---|---|
{per_class}

**Limits**: the model knows ten classes and assigns one of them to every image.
Use it for experiments and as a start for fine-tuning, not for decisions.

Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009.
Trockman and Kolter: Patches Are All You Need?, arXiv 2201.09792.
"""
TRAINING = """\
{number}. `{command}`
   {epochs} epochs in batches of {batch_size}, peak rate {learning_rate}, \
weight decay {weight_decay},
   seed {seed}, {precision}, {hours:.1f} hours with TensorFlow {tensorflow} \
and Keras {keras}"""

_RUN = flags.DEFINE_multi_string(
    "run", ["runs/cifar10"], "Run folder; if repeated, the last has the model."
)
_DATA = flags.DEFINE_string(
    "data", "cifar10", "Folder, or name in tensorflow-datasets."
)
_SPLIT = flags.DEFINE_string("split", "test", "Split for the evaluation.")
_REMARK = flags.DEFINE_string(
    "remark", "", "A sentence about the images, shown with the accuracy."
)
_OUTPUT = flags.DEFINE_string(
    "output", str(FOLDER), "Folder for weights, figures and card."
)
_RECORD = flags.DEFINE_string(
    "record",
    str(pathlib.Path(__file__).parent / "results" / "train_cifar10"),
    "Folder for the runs' own files.",
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace existing files.")


def check_run(run):
    """Raises an error unless a run is finished and has the right model."""
    missing = [x for x in ("model.keras", *RECORDS) if not (run / x).is_file()]
    if missing:
        raise FileNotFoundError(
            f"The run in `{run}` is not finished: {', '.join(missing)} is "
            "missing. Run the same command to resume it."
        )
    names = open_model(run).class_names
    if names != CIFAR10_CLASSES:
        raise ValueError(
            f"The run must have the classes {', '.join(CIFAR10_CLASSES)}. "
            f"Received: {', '.join(names or ['no names'])}"
        )
    # Raises if the architecture, mean or standard deviation differ.
    ConvMixer256_8(weights=run / "model.keras")


def check_start(run, before):
    """Raises an error unless a run started from the previous run."""
    start = json.loads((run / "config.json").read_text()).get("weights")
    expected = before and before / "model.keras"
    paths = [x and pathlib.Path(x).resolve() for x in (start, expected)]
    if paths[0] != paths[1]:
        raise ValueError(
            f"The run in `{run}` must have started from "
            f"{expected or 'random weights'}. Pass the run that it started "
            "from as the previous `--run`. Received: "
            f"{start or 'random weights'}"
        )


def measure(model, dataset):
    """Evaluates a model on all images and returns `Scores`."""
    batches = data.evaluation_batches(
        dataset, FACTS.image_size, 250, crop_fraction=FACTS.crop_fraction
    )
    return evaluate_function(model.predict_on_batch, batches, FACTS.classes)


def write_weights(model, path):
    """Writes a model's weights in float16. Large weights are an error."""
    with np.errstate(over="ignore"):
        rounded = {
            name: value if value.dtype.kind == "i" else value.astype("float16")
            for name, value in timm_state_dict(model).items()
        }
    large = [name for name, x in rounded.items() if not np.isfinite(x).all()]
    if large:
        raise ValueError(f"Too large for float16: {', '.join(large[:5])}.")
    save_file(rounded, path, metadata={"format": "pt"})


def describe_training(run):
    """Collects the training settings of a run for the JSON file."""
    summary, config, environment = (
        json.loads((run / name).read_text()) for name in RECORDS[1:]
    )
    script, *arguments = environment["command"]
    script = f"recipes/{pathlib.PurePath(script).name}"
    names = ("epochs", "batch_size", "learning_rate", "weight_decay", "seed")
    return {
        "command": shlex.join(["python", script, *map(_shorten, arguments)]),
        **{name: config[name] for name in names},
        "precision": summary["precision"],
        "hours": summary["seconds"] / 3600,
        **{name: environment[name] for name in ("tensorflow", "keras")},
    }


def write_card(path, facts):
    """Writes the model card from the JSON file."""
    training = enumerate(facts["training"], 1)
    text = CARD.format(
        **{
            **facts,
            "classes": ", ".join(CIFAR10_CLASSES),
            "training": "\n".join(
                TRAINING.format(number=i, **run) for i, run in training
            ),
            "per_class": "\n".join(
                f"| {name} | {x:.1%} |"
                for name, x in facts["per_class"].items()
            ),
        }
    )
    write_text(path, text.replace("\n\n\n", "\n\n"))


def keep_records(run, folder):
    """Copies a run's log and settings without absolute paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in RECORDS:
        shutil.copyfile(run / name, folder / name)
    environment = json.loads((run / "environment.json").read_text())
    environment.pop("platform", None)
    environment["command"] = [_shorten(x) for x in environment["command"]]
    dump_json(folder / "environment.json", environment)
    config = json.loads((run / "config.json").read_text())
    if config.get("weights"):
        config["weights"] = _shorten(config["weights"])
        dump_json(folder / "config.json", config)


def _shorten(argument):
    """Shortens an absolute path, also after `--flag=`."""
    flag, separator, value = argument.rpartition("=")
    path = pathlib.PurePath(value)
    if not path.is_absolute():
        return argument
    parts = path.parts[-2:] if path.name == "model.keras" else path.parts[-1:]
    return flag + separator + "/".join(parts)


def main(argv):
    """Packages the run."""
    launch.start(argv)
    runs, output = [*map(pathlib.Path, _RUN.value)], pathlib.Path(_OUTPUT.value)
    for before, run in zip([None, *runs], runs, strict=False):
        check_run(run)
        check_start(run, before)
    (dataset,) = run_flags.open_datasets(_DATA.value, _SPLIT.value)
    if dataset.class_names != CIFAR10_CLASSES:
        raise ValueError(
            f"--data must have the classes {', '.join(CIFAR10_CLASSES)}. "
            f"Received: {', '.join(dataset.class_names)}"
        )
    output.mkdir(parents=True, exist_ok=True)
    paths = {x: output / f"{NAME}.{x}" for x in ("safetensors", "json", "md")}
    for suffix, path in paths.items():
        check_destination(path, (suffix,), _OVERWRITE.value)
    model = load_model(runs[-1] / "model.keras")
    with tempfile.TemporaryDirectory() as folder:
        weights = pathlib.Path(folder) / f"{NAME}.safetensors"
        write_weights(model, weights)
        scores = measure(ConvMixer256_8(weights=weights), dataset)
        facts = {
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "bytes": weights.stat().st_size,
            **scores.summary(),
            "per_class": dict(
                zip(CIFAR10_CLASSES, map(float, scores.per_class), strict=True)
            ),
            "top1_in_float32": measure(model, dataset).top1,
            "remark": _REMARK.value,
            "training": [describe_training(run) for run in runs],
        }
        with replaced(paths["safetensors"]) as unfinished:
            shutil.copyfile(weights, unfinished)
    write_card(paths["md"], facts)
    dump_json(paths["json"], facts)
    for number, run in enumerate(runs, 1):
        keep_records(run, pathlib.Path(_RECORD.value) / str(number))
    print(
        f"{facts['images']:,} images: top-1 {facts['top1']:.2%}, before "
        f"rounding to float16 {facts['top1_in_float32']:.2%}",
        *paths.values(),
        _RECORD.value,
        sep="\n",
    )


if __name__ == "__main__":
    launch.run(main)
