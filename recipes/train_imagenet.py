"""Trains a ConvMixer on ImageNet as its authors did.

    python recipes/train_imagenet.py --data imagenet2012 --model 1536_20

The default flags reproduce the authors' training: 640 images per update (theirs
were 64 on each of 10 GPUs), 150 epochs (300 for 768/32), AdamW with epsilon
1e-3, the three-piece schedule, RandAugment, Mixup or CutMix, random erasing.
`data.get_augmentation("imagenet")` and `TrainConfig` have all values.

On fewer devices, keep the batch size and accumulate gradients:
`--accumulation_steps 10` runs 64 images at a time on one GPU, with batch
normalization over 64 images as in the authors' training. `--remat` halves the
memory again. Another `--batch_size` scales the learning rate in proportion,
0.01 x batch_size / 640, unless `--learning_rate` is passed. This rule is common
but was not tested here.

To resume a stopped run, run the same command. README.md in this folder has the
start-up time and the setup for several machines.

Time: about 9 days on 10 RTX 8000 for 1536/20, 8 days for 768/32, as the authors
report. Result of the authors: 81.4 % (1536/20), 80.2 % (768/32), 76.9 %
(1024/20) top-1. It was not run to the end here. README.md in this folder
describes what was run.
"""

import os

import curves
import launch
import run_flags
from absl import flags
from absl import logging

from convmixer_tf import ConvMixer768_32
from convmixer_tf import ConvMixer1024_20
from convmixer_tf import ConvMixer1536_20
from convmixer_tf import data
from convmixer_tf.training import TrainConfig
from convmixer_tf.training import steps_per_epoch
from convmixer_tf.training import train_classifier
from convmixer_tf.validation import ORIENTATIONS

MODELS = {  # with the authors' number of epochs
    "1536_20": (ConvMixer1536_20, 150),
    "768_32": (ConvMixer768_32, 300),
    "1024_20": (ConvMixer1024_20, 150),
}

flags.adopt_module_key_flags(run_flags)
_DATA = flags.DEFINE_string(
    "data", "imagenet2012", "Folder, table, or name in tensorflow-datasets."
)
_TRAIN_SPLIT = flags.DEFINE_string("train_split", "train", "Training split.")
_EVAL_SPLIT = flags.DEFINE_string("eval_split", "validation", "Eval split.")
_MODEL = flags.DEFINE_enum("model", "1536_20", MODELS, "Which ConvMixer.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder of the run. Default: runs/imagenet_MODEL."
)
_EPOCHS = flags.DEFINE_integer("epochs", None, "Default: the authors'.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 640, "Images per update.")
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", None, "Peak rate. Default: 0.01 x batch_size / 640."
)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "Image size, in pixels.")
_ORIENTATION = flags.DEFINE_enum(
    "orientation",
    "stored",
    ORIENTATIONS,
    "Read pixels as stored, as the authors did, or rotate as EXIF says.",
)
_REMAT = flags.DEFINE_bool(
    "remat", False, "Recompute activations to save memory."
)


def main(argv):
    """Trains the model."""
    launch.start(argv)
    strategy = run_flags.strategy()
    build, epochs = MODELS[_MODEL.value]
    train_set, eval_set = run_flags.open_datasets(
        _DATA.value, _TRAIN_SPLIT.value, _EVAL_SPLIT.value
    )
    batch_size, size = _BATCH_SIZE.value, _IMAGE_SIZE.value
    config = TrainConfig(
        epochs=run_flags.given(_EPOCHS, epochs),
        batch_size=batch_size,
        learning_rate=run_flags.given(_LEARNING_RATE, 0.01 * batch_size / 640),
        **run_flags.settings(steps_per_epoch(train_set, batch_size)),
    )

    def build_model(classifier_activation):
        return build(
            weights=None,
            input_shape=(size, size, 3),
            classes=len(train_set.class_names),
            classifier_activation=classifier_activation,
            remat=_REMAT.value,
        )

    output = _OUTPUT.value or os.path.join("runs", f"imagenet_{_MODEL.value}")
    _, summary = train_classifier(
        config,
        build_model,
        train_set,
        eval_set,
        data.get_augmentation("imagenet"),
        size,
        output,
        strategy,
        orientation=_ORIENTATION.value,
        notes={"model": _MODEL.value},
    )
    logging.info("Top-1 %.2f %%", 100 * summary["last"]["top1"])
    if strategy.extended.should_save_summary:
        logging.info("%s", curves.draw_run(output))


if __name__ == "__main__":
    launch.run(main)
