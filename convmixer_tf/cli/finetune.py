"""Fine-tunes a ConvMixer on your own images.

    convmixer finetune --data FOLDER --model 256_8 --output runs/mine

FOLDER has a folder of images for each class, or `train/CLASS/*.jpg` and
optionally `validation` and `test`. `--data` can also be a CSV table with the
columns `path` and `label`, or the name of a data set in tensorflow-datasets.
`--model` is a variant with published weights, a `.keras` file or a run folder.
The weights of `256_8`, for images of 32 pixels, ship with this package. The
weights of the other variants, for 224 pixels, are downloaded.

First, a linear classifier is fitted to the features of the pretrained model.
Then, unless `--frozen` is passed, all weights are trained. The validation
images decide which of the two becomes `model.keras`. `finetune.json` is the
report.

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
    "data_dir", None, "Data directory of tensorflow-datasets."
)
_MODEL = flags.DEFINE_string(
    "model",
    "512_16",
    f"{', '.join(VARIANTS)} (256_8 ships with the package, the others are "
    "downloaded), a ConvMixer's .keras file or a run folder.",
)
_OUTPUT = flags.DEFINE_string("output", "runs/finetune", "Folder of the run.")
_FROZEN = flags.DEFINE_bool("frozen", False, "Train only the classifier.")
_EPOCHS = flags.DEFINE_integer(
    "epochs",
    None,
    "Passes over the images. Default: depends on their number.",
    1,
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "Images per update. Default: depends on their number.",
    1,
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", None, "Peak rate for all weights. Default: 2e-3."
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Image size, in pixels. Default: the model's.", 1
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
    "Rotate images as their EXIF says, or read pixels as stored. Default: the "
    "model's.",
)
_VALIDATION = flags.DEFINE_float(
    "validation_fraction",
    0.2,
    "Fraction of the images for validation, if there is no such split.",
    0.01,
    0.9,
)
_STRATEGY = flags.DEFINE_enum(
    "strategy", "auto", STRATEGIES, "Distribution strategy."
)
_PRECISION = flags.DEFINE_enum(
    "precision", "auto", PRECISIONS, "Precision of the computation."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of all randomness.", 0)


def main(argv):
    """Fine-tunes the model."""
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
