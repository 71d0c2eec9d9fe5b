"""Compares the speed of the input pipeline with timm's, on one core.

    python recipes/benchmark_data.py --data ~/imagenet --split train

It needs a folder `split/class/*.jpg`, for example 500 images of ImageNet, and
PyTorch and timm. Both pipelines read the same files in this process, pinned to
one core, in turns. The figures are medians of processor time because other
programs affect the wall clock. The start-up of a pipeline is not counted: the
time of a short epoch is subtracted from the time of a longer one.

Time: about four minutes on an idle core.
Result: recipes/results/benchmark_data.json.
"""

import dataclasses
import json
import os
import statistics
import time

from absl import app
from absl import flags

from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced

_DATA = flags.DEFINE_string("data", None, "Folder of images.", required=True)
_SPLIT = flags.DEFINE_string("split", "train", "Folder in it.")
_OUTPUT = flags.DEFINE_string(
    "output", "recipes/results/benchmark_data.json", "JSON file to write."
)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of rounds.", lower_bound=1)
_BATCHES = flags.DEFINE_integer(
    "batches", 32, "Batches of a long epoch; the first two are not counted.", 3
)
_CORE = flags.DEFINE_integer("core", 0, "Core to run on.", lower_bound=0)

SIZE, BATCH = 224, 64
SHORT = 2  # batches


def our_epochs(augmentation):
    """Returns a function that runs some batches of this package."""
    from convmixer_tf.data import open_dataset
    from convmixer_tf.data import train_batches

    dataset = open_dataset(_DATA.value, _SPLIT.value)
    if len(dataset) < BATCH:  # timm's loader would return no batch.
        raise app.UsageError(
            f"--data must have at least {BATCH} images. "
            f"Received: {len(dataset)}"
        )
    dataset = dataclasses.replace(dataset, contents=None)
    dataset = dataset.repeated(-(-BATCH * _BATCHES.value // len(dataset)))
    steps = len(dataset) // BATCH

    def run(batches, epoch):
        for _ in train_batches(
            dataset,
            augmentation,
            SIZE,
            BATCH,
            seed=0,
            epoch=epoch,
            skip_steps=steps - batches,
        ):
            pass

    return run


def timm_epochs(full):
    """Returns a function that runs some batches of timm."""
    import torch
    from timm.data import FastCollateMixup
    from timm.data import auto_augment
    from timm.data import create_dataset
    from timm.data import create_loader

    torch.set_num_threads(1)
    # timm sometimes requests 0 bits, which Pillow 13 rejects.
    posterize = auto_augment.ImageOps.posterize
    auto_augment.ImageOps.posterize = lambda image, bits: posterize(
        image, max(bits, 1)
    )
    options = {"color_jitter": None}
    if full:
        options = {
            "auto_augment": "rand-m9-mstd0.5-inc1",
            "re_prob": 0.25,
            "re_mode": "pixel",
            "collate_fn": FastCollateMixup(
                mixup_alpha=0.5,
                cutmix_alpha=0.5,
                label_smoothing=0.1,
                num_classes=1000,
            ),
        }
    loader = create_loader(
        create_dataset("", os.path.join(_DATA.value, _SPLIT.value)),
        (3, SIZE, SIZE),
        BATCH,
        is_training=True,
        interpolation="random",
        num_workers=0,
        persistent_workers=False,
        pin_memory=False,
        device=torch.device("cpu"),
        **options,
    )

    def run(batches, epoch):
        del epoch
        while batches:
            for _ in loader:
                batches -= 1
                if not batches:
                    return

    return run


def milliseconds(run, epoch):
    """Measures the processor time per image."""
    spent = []
    for batches in (SHORT, _BATCHES.value):
        start = time.process_time()
        run(batches, epoch)
        spent.append(time.process_time() - start)
    return 1e3 * (spent[1] - spent[0]) / (BATCH * (_BATCHES.value - SHORT))


def main(argv):
    """Measures all pipelines in turns and writes the comparison."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    check_destination(_OUTPUT.value, (".json",), overwrite=True)
    os.sched_setaffinity(0, {_CORE.value})
    import tensorflow as tf

    from convmixer_tf.data import Augmentation
    from convmixer_tf.data import get_augmentation

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    full = get_augmentation("imagenet")
    pipelines = {
        "ours, crop and flip": our_epochs(Augmentation()),
        "timm, crop and flip": timm_epochs(full=False),
        "ours, full recipe": our_epochs(full),
        "timm, full recipe": timm_epochs(full=True),
        "ours, with RandAugment only": our_epochs(
            Augmentation(rand_augment=full.rand_augment)
        ),
        "ours, with mixing only": our_epochs(Augmentation(mixing=full.mixing)),
        "ours, with erasing only": our_epochs(
            Augmentation(erasing=full.erasing)
        ),
    }
    for run in pipelines.values():
        run(SHORT, 0)
    times = {name: [] for name in pipelines}
    for turn in range(_ROUNDS.value):
        for name, run in pipelines.items():
            times[name].append(milliseconds(run, turn))
    median = {name: statistics.median(t) for name, t in times.items()}
    report = {
        "image_size": SIZE,
        "batch_size": BATCH,
        "images_per_second": {n: 1e3 / t for n, t in median.items()},
        "milliseconds_per_image": median,
        "all_rounds": times,
        "ratio": {
            part: median[f"timm, {part}"] / median[f"ours, {part}"]
            for part in ("crop and flip", "full recipe")
        },
    }
    with replaced(_OUTPUT.value) as unfinished, open(unfinished, "w") as file:
        json.dump(report, file, indent=2)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    app.run(main)
