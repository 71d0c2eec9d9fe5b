"""Fine-tunes a ConvMixer on images of one's own.

    python recipes/finetune.py --data FOLDER --model 1024_20 --output runs/mine

FOLDER has train/CLASS/*.jpg and validation/CLASS/*.jpg; or `--data` is the name
of a data set in tensorflow-datasets. `--model` is a variant with its published
weights, or a `.keras` file or the folder of a run, such as the other recipes
end in: the same model then learns other classes. The weights of `256_8`, for
images of 32 pixels, are in this package; those of the others, for 224, are
fetched. Trains all weights, with a learning rate that falls
from block to block toward the image (`--layer_decay`), or only a new
classifier on frozen features (`--frozen`). Ends in `model.keras`, which has the
names of the classes in it, and `curve.png`.

`--augmentation keras_cv` needs `pip install keras-cv`. Its random numbers are
its own: no run with it repeats, and one that was stopped goes on, but not to
the same bits.

Time: with `--frozen`, that of the forward pass; BUILD.md has images per
second. Result: depends on the images; see results/finetune.json for some.
"""

import collections.abc
import dataclasses
import functools

import curves
import launch
import run_flags
from absl import flags
from absl import logging

from convmixer_tf import ConvMixer
from convmixer_tf import data
from convmixer_tf.models import VARIANTS
from convmixer_tf.models import find_model
from convmixer_tf.models import read_arguments
from convmixer_tf.models import read_crop_fraction
from convmixer_tf.training import TrainConfig
from convmixer_tf.training import is_chief
from convmixer_tf.training import steps_per_epoch
from convmixer_tf.training import train_classifier
from convmixer_tf.validation import ORIENTATIONS
from convmixer_tf.weights import DATASETS
from convmixer_tf.weights import PUBLISHED_WEIGHTS
from convmixer_tf.weights.names import abbreviate

_DATA = flags.DEFINE_string(
    "data", None, "Folder, or name in tensorflow-datasets.", required=True
)
_TRAIN_SPLIT = flags.DEFINE_string("train_split", "train", "To train on.")
_EVAL_SPLIT = flags.DEFINE_string("eval_split", "validation", "To evaluate on.")
_MODEL = flags.DEFINE_string(
    "model",
    "1024_20",
    f"{', '.join(VARIANTS)} (256_8 is part of the package, the others are "
    "fetched), a ConvMixer's .keras file or the folder of a run.",
)
_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    f"Where to start from: {', '.join(DATASETS)}, a file, or random. Default: "
    "the file that --model is, or the variant's own.",
)
_OUTPUT = flags.DEFINE_string("output", "runs/finetune", "Folder of the run.")
_FROZEN = flags.DEFINE_bool("frozen", False, "Train the classifier alone.")
_EPOCHS = flags.DEFINE_integer("epochs", 20, "Passes over the images.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images per update.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-3, "The peak.")
_WEIGHT_DECAY = flags.DEFINE_float("weight_decay", 0.01, "Times the rate.")
_LAYER_DECAY = flags.DEFINE_float(
    "layer_decay", 0.8, "Factor of the rate from a block to the one before."
)
_DROP_PATH = flags.DEFINE_float("drop_path", 0.0, "Stochastic depth.")
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Side, in pixels. Default: the model's own."
)
_CROP = flags.DEFINE_float(
    "crop_fraction",
    None,
    "Part of an image's side to evaluate. Default: the model's, or else "
    f"{data.CROP_FRACTION}.",
)
_AUGMENTATION = flags.DEFINE_enum(
    "augmentation",
    "light",
    data.AUGMENTATIONS,
    "What happens to training images. With keras_cv no run repeats.",
)
_ORIENTATION = flags.DEFINE_enum(
    "orientation",
    data.ORIENTATION,
    ORIENTATIONS,
    "Turn images as their EXIF says, or take pixels as stored.",
)


@dataclasses.dataclass(frozen=True)
class Origin:
    """What to fine-tune.

    Attributes:
        name: Name of the variant, or path of the file.
        build: Function of `input_shape` and further arguments of `ConvMixer`
            that builds such a model with its weights.
        weights: Which these are, in a word or two.
        image_size: Side of its images, in pixels; `None` if it takes any.
        crop_fraction: Part of an image's side that it is evaluated on.
    """

    name: str
    build: collections.abc.Callable
    weights: str
    image_size: int | None
    crop_fraction: float


def find_origin(name, weights=None):
    """Finds what to fine-tune.

    Args:
        name: What `--model` may be.
        weights: What `--weights` may be.

    Returns:
        An `Origin`.

    Raises:
        ValueError: If there is no such model, or not one for color images.
    """
    origin = _find_variant(name) if name in VARIANTS else _find_file(name)
    if not weights:
        return origin
    given = None if weights == "random" else weights
    build = functools.partial(origin.build, weights=given)
    return dataclasses.replace(origin, build=build, weights=weights)


def _find_variant(name):
    facts = PUBLISHED_WEIGHTS[f"convmixer_{name}"]
    return Origin(
        name,
        VARIANTS[name],
        facts.dataset,
        facts.image_size,
        facts.crop_fraction,
    )


def _find_file(name):
    name = find_model(name)
    if not name.endswith(".keras"):
        raise ValueError(
            f"--model must be one of {', '.join(VARIANTS)}, the path of a "
            ".keras file or the folder of a run, which has a model.keras. "
            f"Received: {name!r}"
        )
    arguments = read_arguments(name)
    height, width, channels = arguments["input_shape"]
    if channels != 3 or height != width:
        raise ValueError(
            "--model must be of square images with 3 channels, which is what "
            f"the data are made into. Received: {name!r}, of images of shape "
            f"{arguments['input_shape']}"
        )
    return Origin(
        name,
        functools.partial(ConvMixer, **arguments, weights=name),
        "its own",
        height,
        read_crop_fraction(name) or data.CROP_FRACTION,
    )


def make_config(train_set):
    """Builds the `TrainConfig` that the flags describe.

    Args:
        train_set: What `data.open_dataset` returns.

    Returns:
        A `TrainConfig`.
    """
    return TrainConfig(
        epochs=_EPOCHS.value,
        batch_size=_BATCH_SIZE.value,
        learning_rate=_LEARNING_RATE.value,
        schedule="cosine",
        warmup_epochs=min(1.0, _EPOCHS.value / 10),
        epsilon=1e-8,
        weight_decay=_WEIGHT_DECAY.value,
        layer_decay=1.0 if _FROZEN.value else _LAYER_DECAY.value,
        **run_flags.settings(steps_per_epoch(train_set, _BATCH_SIZE.value)),
    )


def make_model(origin, image_size, classes, classifier_activation):
    """Builds the model to train: an origin's with a new classifier.

    Args:
        origin: An `Origin`.
        image_size: Side of the images, in pixels.
        classes: Integer, the number of classes.
        classifier_activation: As for `ConvMixer`.

    Returns:
        A `keras.Model`.
    """
    model = origin.build(
        input_shape=(image_size, image_size, 3),
        classes=classes,
        classifier_activation=classifier_activation,
        reset_classifier=True,
        drop_path=_DROP_PATH.value,
    )
    if _FROZEN.value:
        for layer in model.layers[:-1]:
            layer.trainable = False
    return model


def main(argv):
    """Fine-tunes as the flags say."""
    run_flags.begin(argv)
    strategy = run_flags.strategy()
    augmentation = data.get_augmentation(_AUGMENTATION.value)
    origin = find_origin(_MODEL.value, _WEIGHTS.value)
    size = run_flags.given(_IMAGE_SIZE, origin.image_size)
    crop_fraction = run_flags.given(_CROP, origin.crop_fraction)
    train_set, eval_set = run_flags.open_datasets(
        _DATA.value, _TRAIN_SPLIT.value, _EVAL_SPLIT.value
    )
    classes = train_set.class_names
    starts_from = f"{origin.name} (weights: {origin.weights})"
    logging.info(
        "Starts from %s; new classifier for %s; %d training and %d evaluation "
        "images of %s pixels",
        *(starts_from, abbreviate(classes, 10)),
        *(len(train_set), len(eval_set), size),
    )

    _, summary = train_classifier(
        make_config(train_set),
        functools.partial(make_model, origin, size, len(classes)),
        train_set,
        eval_set,
        augmentation,
        size,
        _OUTPUT.value,
        strategy,
        crop_fraction=crop_fraction,
        orientation=_ORIENTATION.value,
        notes={
            "model": origin.name,
            "weights": _WEIGHTS.value,
            "starts_from": starts_from,
            "frozen": _FROZEN.value,
            "drop_path": _DROP_PATH.value,
        },
    )
    logging.info("Top-1 %.2f %%", 100 * summary["last"]["top1"])
    if is_chief(strategy):
        curve = curves.draw_run(_OUTPUT.value)
        logging.info("Wrote model.keras and its curve, %s", curve)


if __name__ == "__main__":
    launch.run(main)
