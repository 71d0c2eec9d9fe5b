"""Fine-tunes a ConvMixer on images of one's own.

    python recipes/finetune.py --data FOLDER --model 1024_20 --output runs/mine

FOLDER has train/CLASS/*.jpg and validation/CLASS/*.jpg; or `--data` is the name
of a data set in tensorflow-datasets. `--model` is a variant with its published
weights, or a `.keras` file, such as the other recipes end in: the same model
then learns other classes. Trains all weights, with a learning rate that falls
from block to block towards the image (`--layer_decay`), or only a new
classifier on frozen features (`--frozen`). Ends in `model.keras`, which has the
names of the classes in it.

`--augmentation keras_cv` needs `pip install keras-cv`. Its random numbers are
its own: no run with it repeats, and one that was stopped goes on, but not to
the same bits.

Time: with `--frozen`, that of the forward pass; BUILD.md has images per
second. Result: depends on the images; see results/finetune.json for some.
"""

import functools

import launch
import run_flags
from absl import flags
from absl import logging

from convmixer_tf import ConvMixer
from convmixer_tf import data
from convmixer_tf.models import VARIANTS
from convmixer_tf.models import read_arguments
from convmixer_tf.training import TrainConfig
from convmixer_tf.training import steps_per_epoch
from convmixer_tf.training import train_classifier
from convmixer_tf.weights import DATASETS
from convmixer_tf.weights import PUBLISHED_WEIGHTS

_DATA = flags.DEFINE_string(
    "data", None, "Folder, or name in tensorflow-datasets.", required=True
)
_TRAIN_SPLIT = flags.DEFINE_string("train_split", "train", "To train on.")
_EVAL_SPLIT = flags.DEFINE_string("eval_split", "validation", "To evaluate on.")
_MODEL = flags.DEFINE_string(
    "model", "1024_20", f"{', '.join(VARIANTS)}, or a ConvMixer's .keras file."
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
    "image_size", None, "Side, in pixels. Default: the file's, or else 224."
)
_CROP = flags.DEFINE_float(
    "crop_fraction", data.CROP_FRACTION, "Part of an image's side to evaluate."
)
_AUGMENTATION = flags.DEFINE_enum(
    "augmentation",
    "light",
    data.RECIPES,
    "What happens to training images. With keras_cv no run repeats.",
)


def model_builder(name):
    """Finds what to fine-tune.

    Args:
        name: What `--model` may be.

    Returns:
        A function of `input_shape` and further arguments of `ConvMixer` that
        builds such a model with its weights, and its side in pixels or `None`.

    Raises:
        ValueError: If there is no such model, or not one for colour images.
    """
    if name in VARIANTS:
        return VARIANTS[name], PUBLISHED_WEIGHTS[f"convmixer_{name}"].image_size
    if not name.endswith(".keras"):
        raise ValueError(
            f"--model must be one of {', '.join(VARIANTS)}, or the path of a "
            f".keras file. Received: {name!r}"
        )
    arguments = read_arguments(name)
    height, width, channels = arguments["input_shape"]
    if channels != 3 or height != width:
        raise ValueError(
            "--model must be of square images with 3 channels, which is what "
            f"the data are made into. Received: {name!r}, of images of shape "
            f"{arguments['input_shape']}"
        )
    return functools.partial(ConvMixer, **arguments, weights=name), height


def main(argv):
    """Fine-tunes as the flags say."""
    run_flags.begin(argv)
    recipe = data.get_recipe(_AUGMENTATION.value)
    build, size = model_builder(_MODEL.value)
    if _WEIGHTS.value:
        weights = None if _WEIGHTS.value == "random" else _WEIGHTS.value
        build = functools.partial(build, weights=weights)
    if _IMAGE_SIZE.value is not None:
        size = _IMAGE_SIZE.value
    train_set, eval_set = run_flags.open_datasets(
        _DATA.value, _TRAIN_SPLIT.value, _EVAL_SPLIT.value
    )
    config = TrainConfig(
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

    def build_model(classifier_activation):
        model = build(
            input_shape=(size, size, 3),
            classes=len(train_set.class_names),
            classifier_activation=classifier_activation,
            reset_classifier=True,
            drop_path=_DROP_PATH.value,
        )
        if _FROZEN.value:
            for layer in model.layers[:-1]:
                layer.trainable = False
        return model

    _, summary = train_classifier(
        config,
        build_model,
        train_set,
        eval_set,
        recipe,
        size,
        _OUTPUT.value,
        run_flags.strategy(),
        crop_fraction=_CROP.value,
        notes={
            "model": _MODEL.value,
            "weights": _WEIGHTS.value,
            "frozen": _FROZEN.value,
            "drop_path": _DROP_PATH.value,
        },
    )
    logging.info("Top-1 %.2f %%", 100 * summary["last"]["top1"])


if __name__ == "__main__":
    launch.run(main)
