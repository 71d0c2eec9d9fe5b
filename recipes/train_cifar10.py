"""Trains a ConvMixer-256/8 on CIFAR-10.

    python recipes/train_cifar10.py --data FOLDER --preset 25

FOLDER has train/CLASS/*.png and test/CLASS/*.png (or .jpg), or is the name
`cifar10` of tensorflow-datasets. There are four presets:

    25   the authors' small script at its shortest: 92.60 % in their log
    100  the same with more augmentation: "more than 94 %"
    200  9 x 9 kernels on single pixels, with the augmentation and optimizer of
         the ImageNet run; a user of the authors' code reports 95.89 % for this
         architecture and length
    fast Muon, covariance initialization of the depthwise kernels, and whole
         images with alternating flips, Mixup and CutMix, to learn more in
         fewer epochs

The first two are from https://github.com/locuslab/convmixer-cifar10, with two
differences: images that do not fill a batch are dropped from an epoch (97
updates instead of 98), and RandAugment is timm's variant instead of
torchvision's.

Time: 5 to 9 ms per image on one core for the first two. Only the first was run
to its end here.
"""

import dataclasses
import pathlib

import curves
import launch
import run_flags
from absl import flags
from absl import logging

from convmixer_tf import ConvMixer
from convmixer_tf import data
from convmixer_tf.models import open_model
from convmixer_tf.preprocessing import CIFAR10_MEAN
from convmixer_tf.preprocessing import CIFAR10_STD
from convmixer_tf.training import CheckpointStore
from convmixer_tf.training import TrainConfig
from convmixer_tf.training import steps_per_epoch
from convmixer_tf.training import train_classifier

_WHOLE_IMAGE = data.RandomResizedCrop(min_area=1.0, min_aspect=1.0)
_LONG = dataclasses.replace(data.get_augmentation("cifar10"), crop=_WHOLE_IMAGE)
_SMALL_SCRIPT = {
    "learning_rate": 0.05,
    "epsilon": 1e-8,
    "weight_decay": 0.005,
    "decay_all": True,
    "clip_norm": None,
}


@dataclasses.dataclass(frozen=True)
class Preset:
    """The settings of a preset."""

    epochs: int
    batch_size: int  # images
    kernel_size: int  # patches
    patch_size: int  # pixels
    settings: dict  # of `TrainConfig`
    augmentation: data.Augmentation
    depthwise_initializer: str | None = None


PRESETS = {
    "25": Preset(
        25,
        512,
        kernel_size=5,
        patch_size=2,
        settings=_SMALL_SCRIPT,
        augmentation=dataclasses.replace(
            _LONG, color_jitter=None, erasing=None
        ),
    ),
    "100": Preset(
        100,
        512,
        kernel_size=5,
        patch_size=2,
        settings=_SMALL_SCRIPT,
        augmentation=_LONG,
    ),
    "200": Preset(
        200,
        64,
        kernel_size=9,
        patch_size=1,
        settings={"learning_rate": 0.001},  # 0.01 x 64 / 640
        augmentation=dataclasses.replace(
            data.get_augmentation("imagenet"),
            # With the usual minimum area, .08, the accuracy stays near 90 %.
            crop=data.RandomResizedCrop(min_area=0.75),
        ),
    ),
    "fast": Preset(
        25,
        128,
        kernel_size=5,
        patch_size=2,
        settings={
            "optimizer": "muon",
            "learning_rate": 0.01,
            "muon_learning_rate": 0.02,
            "schedule": "cosine",
            "warmup_epochs": 2,
            "epsilon": 1e-8,
            "weight_decay": 0.02,
            "clip_norm": None,
        },
        augmentation=data.Augmentation(
            crop=_WHOLE_IMAGE,
            alternate_flips=True,
            mixing=data.Mixing(mixup_alpha=0.5, cutmix_alpha=1.0, mode="elem"),
            label_smoothing=0.1,
        ),
        depthwise_initializer="covariance",
    ),
}

flags.adopt_module_key_flags(run_flags)
_DATA = flags.DEFINE_string(
    "data", "cifar10", "Folder, table, or name in tensorflow-datasets."
)
_PRESET = flags.DEFINE_enum("preset", "25", PRESETS, "Preset of settings.")
_OUTPUT = flags.DEFINE_string("output", "runs/cifar10", "Folder of the run.")
_EPOCHS = flags.DEFINE_integer("epochs", None, "Default: the preset's.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Default: the preset's.")
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate",
    None,
    "Also scales the preset's rate for Muon, if it has one. Default: the "
    "preset's, for any batch size.",
)
_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "File to start from, such as another run's model.keras. Default: random.",
)
_DIM = flags.DEFINE_integer("dim", 256, "Width of the model.")
_DEPTH = flags.DEFINE_integer("depth", 8, "Blocks of the model.")
_KERNEL_SIZE = flags.DEFINE_integer(
    "kernel_size", None, "Patches. Default: the preset's."
)
_PATCH_SIZE = flags.DEFINE_integer(
    "patch_size", None, "Pixels. Default: the preset's."
)
_OPTIMIZER = flags.DEFINE_enum(
    "optimizer", None, ["adamw", "muon"], "Default: the preset's."
)
_INITIALIZER = flags.DEFINE_enum(
    "depthwise_initializer",
    None,
    ["uniform", "covariance"],
    "Initializer of depthwise kernels. Default: the preset's.",
)
_HELD_OUT = flags.DEFINE_integer(
    "held_out",
    0,
    "Number of training images to hold out and evaluate on instead of the test "
    "images, for choosing settings.",
)
_TEACHER = flags.DEFINE_string(
    "teacher",
    None,
    "Teacher for distillation, a Keras model as for evaluate.py.",
)
_DISTILLATION_WEIGHT = flags.DEFINE_float(
    "distillation_weight", 0.5, "Weight of the teacher in the loss."
)
_TEMPERATURE = flags.DEFINE_float(
    "distillation_temperature", 2.0, "Divisor of the logits in distillation."
)
_ACTIVATION = flags.DEFINE_enum(
    "activation", "gelu", ["gelu", "relu"], "Activation of the model."
)


def make_config(train_set):
    """Builds the `TrainConfig` from the flags.

    Args:
        train_set: Data set from `data.open_dataset`.

    Returns:
        A `TrainConfig`.
    """
    preset = PRESETS[_PRESET.value]
    batch_size = run_flags.given(_BATCH_SIZE, preset.batch_size)
    settings = dict(preset.settings)
    epochs = run_flags.given(_EPOCHS, preset.epochs)
    if "warmup_epochs" in settings:  # The same fraction of any run.
        settings["warmup_epochs"] *= epochs / preset.epochs
    if _LEARNING_RATE.value is not None:
        if "muon_learning_rate" in settings:
            factor = _LEARNING_RATE.value / settings["learning_rate"]
            settings["muon_learning_rate"] *= factor
        settings["learning_rate"] = _LEARNING_RATE.value
    if _OPTIMIZER.value is not None:
        settings["optimizer"] = _OPTIMIZER.value
    return TrainConfig(
        epochs=epochs,
        batch_size=batch_size,
        distillation_weight=_DISTILLATION_WEIGHT.value,
        distillation_temperature=_TEMPERATURE.value,
        **settings,
        **run_flags.settings(steps_per_epoch(train_set, batch_size)),
    )


def make_model(classes, classifier_activation=None):
    """Builds the model from the flags.

    Args:
        classes: Integer, the number of classes.
        classifier_activation: As for `ConvMixer`.

    Returns:
        A `keras.Model` of images of 32 x 32 pixels.
    """
    preset = PRESETS[_PRESET.value]
    return ConvMixer(
        _DIM.value,
        _DEPTH.value,
        run_flags.given(_KERNEL_SIZE, preset.kernel_size),
        run_flags.given(_PATCH_SIZE, preset.patch_size),
        _ACTIVATION.value,
        input_shape=(32, 32, 3),
        classes=classes,
        classifier_activation=classifier_activation,
        weights=None if _has_begun() else _WEIGHTS.value,
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
        depthwise_initializer=_depthwise_initializer(),
    )


def _depthwise_initializer():
    name = run_flags.given(
        _INITIALIZER, PRESETS[_PRESET.value].depthwise_initializer
    )
    return None if name == "uniform" else name


def open_teacher():
    """Opens the teacher in the flag, for images of 32 x 32 pixels."""
    return open_model(_TEACHER.value, 32)


def open_datasets():
    """Opens the training and the evaluation images."""
    if not _HELD_OUT.value:
        return run_flags.open_datasets(_DATA.value, "train", "test")
    (train_set,) = run_flags.open_datasets(_DATA.value, "train")
    return data.hold_out(train_set, _HELD_OUT.value)


def _has_begun():
    """Returns whether the run has checkpoints to resume from."""
    folder = pathlib.Path(_OUTPUT.value) / "checkpoints"
    return bool(CheckpointStore(folder, writes=False).names())


def model_flags():
    """Returns the flags of the model, by name."""
    described = (
        _PRESET,
        _DIM,
        _DEPTH,
        _KERNEL_SIZE,
        _PATCH_SIZE,
        _ACTIVATION,
    )
    if _INITIALIZER.value is not None:  # Older runs do not have it.
        described += (_INITIALIZER,)
    return {flag.name: flag.value for flag in described}


def main(argv):
    """Trains the model."""
    launch.start(argv)
    strategy = run_flags.strategy()
    train_set, eval_set = open_datasets()
    classes = len(train_set.class_names)
    _, summary = train_classifier(
        make_config(train_set),
        lambda activation: make_model(classes, activation),
        train_set,
        eval_set,
        PRESETS[_PRESET.value].augmentation,
        32,
        _OUTPUT.value,
        strategy,
        crop_fraction=1.0,
        notes={
            "model": model_flags(),
            "weights": _WEIGHTS.value,
            "teacher": _TEACHER.value,
        },
        open_teacher=_TEACHER.value and open_teacher,
    )
    logging.info("Top-1 %.2f %%", 100 * summary["last"]["top1"])
    if strategy.extended.should_save_summary:
        logging.info("%s", curves.draw_run(_OUTPUT.value))


if __name__ == "__main__":
    launch.run(main)
