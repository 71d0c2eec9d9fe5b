"""Teaches a ConvMixer the classes of your images.

    convmixer finetune --data FOLDER --output runs/mine

FOLDER has a folder of images for each class, or these in `train`, `validation`
and `test`; or `--data` is a table of images (CSV) or the name of a data set in
tensorflow-datasets. A linear classifier is fitted to the features of the model
as it is, in seconds; `--frozen` ends there. Then all weights are trained from
it, and the validation images decide which of the two is kept. Ends in
`model.keras`, its card, the report `finetune.json` and the list `images.csv`.
"""

from absl import app
from absl import flags
from absl import logging

from convmixer_tf.models import VARIANTS
from convmixer_tf.training import finetune
from convmixer_tf.training.config import PRECISIONS
from convmixer_tf.training.strategy import STRATEGIES
from convmixer_tf.validation import ORIENTATIONS

# Flags that are arguments of `finetune` by the same names.
_ARGUMENTS = [
    flags.DEFINE_bool("frozen", False, "Fit the classifier only."),
    flags.DEFINE_integer(
        "image_size", None, "Side, in pixels. Default: the model's.", 1
    ),
    flags.DEFINE_float(
        "crop_fraction",
        None,
        "Part of an image's side to evaluate. Default: the model's.",
    ),
    flags.DEFINE_enum(
        "orientation",
        None,
        ORIENTATIONS,
        "Turn images as their EXIF says, or take pixels as stored. Default: "
        "the model's.",
    ),
    flags.DEFINE_float(
        "validation_fraction",
        0.2,
        "Part of the images to choose by, if they are not divided.",
    ),
    flags.DEFINE_integer(
        "epochs", None, "Passes over the images. Default: by their number.", 1
    ),
    flags.DEFINE_integer(
        "batch_size", None, "Images per update. Default: by their number.", 1
    ),
    flags.DEFINE_float("learning_rate", None, "The peak. Default: likewise."),
    flags.DEFINE_enum("strategy", "auto", STRATEGIES, "On which devices."),
    flags.DEFINE_enum("precision", "auto", PRECISIONS, "What to compute in."),
    flags.DEFINE_integer("seed", 0, "Seed of everything that is random."),
    flags.DEFINE_string(
        "data_dir", None, "Where tensorflow-datasets keeps its data."
    ),
]
_DATA = flags.DEFINE_string(
    "data", None, "Folder, table (CSV) or data set.", required=True
)
_MODEL = flags.DEFINE_string(
    "model",
    "256_8",
    f"{', '.join(VARIANTS)} (256_8 is part of the package, the others are "
    "fetched), a ConvMixer's .keras file or the folder of a run.",
)
_OUTPUT = flags.DEFINE_string("output", "runs/finetune", "Folder of the run.")


def main(argv):
    """Fine-tunes as the flags say."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.INFO)
    result = finetune(
        _DATA.value,
        _MODEL.value,
        _OUTPUT.value,
        **{flag.name: flag.value for flag in _ARGUMENTS},
    )
    found = result.report["validation"]
    figures = ", ".join(
        f"{name} {value:.4g}"
        for name, value in found.items()
        if isinstance(value, int | float)
    )
    print(f"Kept: {result.report['kept']}. Validation: {figures}")
    print(result.path)
