"""Fine-tunes a ConvMixer on images of one's own.

    convmixer finetune --data FOLDER --model 256_8 --output runs/mine

FOLDER has a folder of images for each class, or `train/CLASS/*.jpg` and, if
there are, `validation` and `test`. `--data` may also be a table (CSV) with the
columns `path` and `label`, or the name of a data set in tensorflow-datasets.
`--model` is a variant with its published weights, or a `.keras` file or the
folder of a run. The weights of `256_8`, for images of 32 pixels, are in this
package; those of the others, for 224, are downloaded.

A linear classifier is fitted to the features of the model as it is; then,
unless `--frozen`, all weights are trained from there. The validation images
decide which of the two becomes `model.keras`. `finetune.json` is the report.

"""

from absl import flags
from absl import logging

from convmixer_tf.cli.launch import start
from convmixer_tf.models.variants import VARIANTS
from convmixer_tf.training import finetune
from convmixer_tf.training.config import PRECISIONS
from convmixer_tf.training.strategy import STRATEGIES
from convmixer_tf.validation import ORIENTATIONS

_DATA = flags.DEFINE_string(
    "data", None, "Folder, CSV file, or name of a data set.", required=True
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where tensorflow-datasets keeps its data."
)
_MODEL = flags.DEFINE_string(
    "model",
    "512_16",
    f"{', '.join(VARIANTS)} (256_8 is part of the package, the others are "
    "downloaded), a ConvMixer's .keras file or the folder of a run.",
)
_OUTPUT = flags.DEFINE_string("output", "runs/finetune", "Folder of the run.")
_FROZEN = flags.DEFINE_bool("frozen", False, "Train the classifier only.")
_EPOCHS = flags.DEFINE_integer(
    "epochs", None, "Passes over the images. Default: by their number.", 1
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Images per update. Default: by their number.", 1
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", None, "Peak, for all weights. Default: 2e-3."
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Side, in pixels. Default: the model's.", 1
)
_CROP = flags.DEFINE_float(
    "crop_fraction",
    None,
    "Fraction of an image's side to keep. Default: the model's.",
    0.01,
    1,
)
_ORIENTATION = flags.DEFINE_enum(
    "orientation",
    None,
    ORIENTATIONS,
    "Turn images as their EXIF says, or take pixels as stored. Default: the "
    "model's.",
)
_VALIDATION = flags.DEFINE_float(
    "validation_fraction",
    0.2,
    "Fraction of the images to validate on, if there is no such split.",
    0.01,
    0.9,
)
_STRATEGY = flags.DEFINE_enum(
    "strategy", "auto", STRATEGIES, "On which devices to train."
)
_PRECISION = flags.DEFINE_enum(
    "precision", "auto", PRECISIONS, "What to compute in."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of everything random.", 0)


def main(argv):
    """Fine-tunes as the flags say."""
    start(argv)
    result = finetune(
        _DATA.value,
        _MODEL.value,
        _OUTPUT.value,
        frozen=_FROZEN.value,
        image_size=_IMAGE_SIZE.value,
        crop_fraction=_CROP.value,
        orientation=_ORIENTATION.value,
        validation_fraction=_VALIDATION.value,
        epochs=_EPOCHS.value,
        batch_size=_BATCH_SIZE.value,
        learning_rate=_LEARNING_RATE.value,
        strategy=_STRATEGY.value,
        precision=_PRECISION.value,
        seed=_SEED.value,
        data_dir=_DATA_DIR.value,
    )
    kept = {"head": "the model with a new head", "all": "all weights trained"}
    logging.info("Kept: %s. Wrote %s", kept[result.report["kept"]], result.path)
