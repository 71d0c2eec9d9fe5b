"""Measures what each part of `train_cifar10.py --preset fast` is worth.

    python recipes/ablate_cifar10.py --data FOLDER --output runs/ablation

It trains a ConvMixer-96/6 for 4 epochs of 22,528 images with one part of the
preset changed, for each variant and each seed. 5,000 training images are held
out for the evaluation; no test image is used. With `--teacher`, it also trains
with distillation. `--dim`, `--depth`, `--epochs` and `--train_images` change
the size of the runs. `results.json` in the output folder has a row for each
run. To resume, repeat the command: finished runs are kept.

Time: 3 to 7 minutes a run on two cores.
"""

import dataclasses
import json
import pathlib
import time

import keras
import launch
import numpy as np
import train_cifar10
from absl import flags
from absl import logging

from convmixer_tf import ConvMixer
from convmixer_tf import data
from convmixer_tf.files import dump_json
from convmixer_tf.models import open_model
from convmixer_tf.preprocessing import CIFAR10_MEAN
from convmixer_tf.preprocessing import CIFAR10_STD
from convmixer_tf.training import TrainConfig
from convmixer_tf.training import evaluate_function
from convmixer_tf.training import train_classifier

FAST = train_cifar10.PRESETS["fast"]
IMAGES = 22528  # Of an epoch, at most.
HELD_OUT = 5000


@dataclasses.dataclass(frozen=True)
class Variant:
    """Changes of the preset.

    Attributes:
        settings: Dictionary, settings of `TrainConfig`.
        augmentation: Dictionary, settings of `data.Augmentation`.
        initializer: Initializer of the depthwise kernels.
        whitened: Boolean, whether the patch embedding starts with whitened
            outputs.
        frozen: Boolean, whether the depthwise kernels are never trained.
        teacher: Pair of distillation weight and temperature, or `None`.
    """

    settings: dict = dataclasses.field(default_factory=dict)
    augmentation: dict = dataclasses.field(default_factory=dict)
    initializer: str | None = "covariance"
    whitened: bool = False
    frozen: bool = False
    teacher: tuple[float, float] | None = None


_ADAMW = {"optimizer": "adamw"}
_TEACHER = (0.9, 4.0)
_HALF_MIXED = {
    "mixing": dataclasses.replace(FAST.augmentation.mixing, probability=0.5)
}
VARIANTS = {
    "preset fast": Variant(),
    "AdamW for all kernels": Variant(_ADAMW),
    "uniform depthwise kernels": Variant(initializer=None),
    "AdamW and uniform depthwise kernels": Variant(_ADAMW, initializer=None),
    "depthwise kernels never trained": Variant(frozen=True),
    "whitened patch embedding": Variant(whitened=True),
    "flips at random": Variant(augmentation={"alternate_flips": False}),
    "no label smoothing": Variant(augmentation={"label_smoothing": 0.0}),
    "no mixing": Variant(augmentation={"mixing": None}),
    "random erasing": Variant(
        augmentation={
            "erasing": data.RandomErasing(
                probability=0.25, max_area=0.2, mode="const"
            )
        }
    ),
    "crops of at least 0.6 of the area": Variant(
        augmentation={
            "crop": data.RandomResizedCrop(
                min_area=0.6, min_aspect=0.8, interpolation="bilinear"
            )
        }
    ),
    "shifts by up to 2 pixels": Variant(
        augmentation={"crop": data.PadAndCrop(2)}
    ),
    "batches of 256": Variant({"batch_size": 256}),
    "running mean of the weights": Variant({"ema_decay": 0.98}),
    "teacher, 0.5 at 4": Variant(teacher=(0.5, 4.0)),
    "teacher, 0.9 at 2": Variant(teacher=(0.9, 2.0)),
    "teacher, 0.9 at 4": Variant(teacher=_TEACHER),
    "teacher, no mixing": Variant(
        augmentation={"mixing": None}, teacher=_TEACHER
    ),
    "teacher, mixing in half of the images": Variant(
        augmentation=_HALF_MIXED, teacher=_TEACHER
    ),
    "teacher, RandAugment, mixing in half of the images": Variant(
        augmentation={
            "rand_augment": data.get_augmentation("cifar10").rand_augment,
            **_HALF_MIXED,
        },
        teacher=_TEACHER,
    ),
}

flags.adopt_module_key_flags(train_cifar10)
_TRAIN_IMAGES = flags.DEFINE_integer(
    "train_images", 45000, "Training images, evenly from all of them.", 1
)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
_VARIANTS = flags.DEFINE_list(
    "variants", None, "Positions of the variants, from 0. Default: all."
)


def make_model(variant, classifier_activation, whitening):
    """Builds the small model of a variant."""
    model = ConvMixer(
        flags.FLAGS.dim,
        flags.FLAGS.depth,
        FAST.kernel_size,
        FAST.patch_size,
        input_shape=(32, 32, 3),
        classes=10,
        classifier_activation=classifier_activation,
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
        depthwise_initializer=variant.initializer,
    )
    if variant.whitened:
        kernel = model.get_layer("patch_embed").conv.kernel
        rows = keras.ops.convert_to_numpy(kernel)
        rows = rows.reshape(len(whitening), -1)
        kernel.assign((whitening @ rows).reshape(kernel.shape))
    if variant.frozen:
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                layer.trainable = False
    return model


def whitening_matrix(dataset):
    """Computes the matrix that decorrelates the patches of 5,000 images."""
    size = FAST.patch_size
    # A folder's images are sorted by class.
    dataset = dataset.select(np.linspace(0, len(dataset), 5000, False))
    batches = data.evaluation_batches(dataset, 32, 500, crop_fraction=1.0)
    images = np.concatenate([x.numpy() for x, *_ in batches])
    images = (images / 255 - CIFAR10_MEAN) / CIFAR10_STD
    patches = images.reshape(len(images), 32 // size, size, 32 // size, size, 3)
    patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(-1, size * size * 3)
    variances, axes = np.linalg.eigh(np.cov(patches.T))
    return axes / np.sqrt(variances + 1e-2) @ axes.T


def run(variant, seed, folder, sets, whitening):
    """Trains one model and returns its row of the results."""
    epochs = flags.FLAGS.epochs
    settings = {
        "batch_size": FAST.batch_size,
        **FAST.settings,
        "warmup_epochs": FAST.settings["warmup_epochs"] * epochs / FAST.epochs,
        **variant.settings,
    }
    if variant.teacher:
        weight, temperature = variant.teacher
        settings["distillation_weight"] = weight
        settings["distillation_temperature"] = temperature
    config = TrainConfig(
        epochs=epochs,
        steps_per_epoch=min(IMAGES, len(sets[0])) // settings["batch_size"],
        seed=seed,
        precision=flags.FLAGS.precision,
        tensorboard=False,
        **settings,
    )
    start = time.process_time()
    model, summary = train_classifier(
        config,
        lambda activation: make_model(variant, activation, whitening),
        *sets,
        dataclasses.replace(FAST.augmentation, **variant.augmentation),
        32,
        folder,
        crop_fraction=1.0,
        open_teacher=variant.teacher
        and (lambda: open_model(flags.FLAGS.teacher, 32)),
    )
    seconds = time.process_time() - start

    def flipped(images):
        answers = (
            model.predict_on_batch(x) for x in (images, images[:, :, ::-1])
        )
        return sum(answers) / 2

    batches = data.evaluation_batches(sets[1], 32, 500, crop_fraction=1.0)
    return {
        "seed": seed,
        "top1": summary["last"]["top1"],
        "top1_flipped": evaluate_function(flipped, batches, 10).top1,
        "processor_seconds": round(seconds),
    }


def main(argv):
    """Trains all variants."""
    launch.start(argv)
    output = pathlib.Path(flags.FLAGS.output)
    train_set = data.open_dataset(flags.FLAGS.data, "train")
    train_set, eval_set = data.hold_out(train_set, HELD_OUT)
    kept = np.linspace(0, len(train_set), _TRAIN_IMAGES.value, False)
    sets = train_set.select(kept), eval_set
    whitening = whitening_matrix(sets[0])
    names = list(VARIANTS)
    chosen = [names[int(i)] for i in _VARIANTS.value or range(len(names))]
    if not flags.FLAGS.teacher:
        chosen = [name for name in chosen if not VARIANTS[name].teacher]
    size = (flags.FLAGS.dim, flags.FLAGS.depth, flags.FLAGS.epochs, len(kept))
    rows = []
    for seed in map(int, _SEEDS.value):
        for name in chosen:
            run_name = (*size, names.index(name), seed)
            folder = output / "_".join(map(str, run_name))
            path = folder / "row.json"
            if not path.exists():
                logging.info("%s, seed %d", name, seed)
                row = run(VARIANTS[name], seed, folder, sets, whitening)
                dump_json(path, {"variant": name, **row})
            rows.append(json.loads(path.read_text()))
            logging.info("%s", rows[-1])
    dump_json(output / "results.json", rows)


if __name__ == "__main__":
    for flag, value in (("dim", 96), ("depth", 6), ("epochs", 4)):
        flags.FLAGS.set_default(flag, value)
    launch.run(main)
