"""Fine-tuning a ConvMixer on images of one's own: head first, then all."""

import dataclasses
import os
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf

from convmixer_tf import data as data_package
from convmixer_tf import models
from convmixer_tf import progress
from convmixer_tf.data.splits import Splits
from convmixer_tf.data.splits import open_splits
from convmixer_tf.files import dump_json
from convmixer_tf.models.copying import copy_weights
from convmixer_tf.models.rebuilding import arguments_of
from convmixer_tf.training.classifier import check_classes
from convmixer_tf.training.classifier import evaluation_inputs
from convmixer_tf.training.config import TrainConfig
from convmixer_tf.training.crops import crop_inputs
from convmixer_tf.training.crops import mirrored
from convmixer_tf.training.crops import random_boxes
from convmixer_tf.training.crops import read_crops
from convmixer_tf.training.metrics import classification_metrics
from convmixer_tf.training.metrics import multi_label_metrics
from convmixer_tf.training.probe import fit_probe
from convmixer_tf.training.trainer import train

REPORT_FILE = "finetune.json"
TABLE_FILE = "images.csv"
# Fewer training images than this train a head only.
MIN_IMAGES = 100

_BATCH_SIZE = 32
RANDOM_VIEWS = 2
PASSES = 20
STAGES = 5
LEARNING_RATE = 3e-4
LAYER_DECAY = 0.8
FREEZE_NORM = True


@dataclasses.dataclass(frozen=True)
class FinetuneResult:
    """A fine-tuned model, and what it was made and measured with.

    Attributes:
        model: The `keras.Model`, with probabilities as its output.
        path: Path of its file, `model.keras` in the folder of the run.
        splits: The `data.splits.Splits` that it was made with.
        crop_fraction: Fraction of the side of an image that is evaluated.
        orientation: As for `data.decode_image`.
        report: Dictionary, the content of `finetune.json`.
    """

    model: keras.Model
    path: str
    splits: Splits
    crop_fraction: float
    orientation: str
    report: dict


def finetune(
    data: str | Splits,
    model: str | models.OpenedModel,
    output: str,
    *,
    frozen: bool = False,
    image_size: int | None = None,
    crop_fraction: float | None = None,
    orientation: str | None = None,
    validation_fraction: float = 0.2,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    strategy: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    data_dir: str | None = None,
) -> FinetuneResult:
    """Teaches a ConvMixer the classes of other images.

    A linear classifier is fitted to the features of the model as it is. Then,
    unless `frozen`, all weights are trained from there. The validation images
    decide which of the two is kept; if they are equal, it is the first.

    `output` then holds `model.keras`, its card `model.md`, the report
    `finetune.json` and the list of images `images.csv`. A run that was
    stopped is resumed by the same call.

    Args:
        data: `Splits`, or what `open_splits` takes: a folder with a folder
            for each class, divided into splits or not, or a table (CSV).
        model: An `OpenedModel` of a ConvMixer, or what `open_model` takes.
        output: Path of the folder of the run.
        frozen: Whether to train the classifier only.
        image_size: Side of the images, in pixels. Defaults to the model's.
        crop_fraction: Fraction of the side of an image that is evaluated.
            Defaults to the model's.
        orientation: As for `data.decode_image`. Defaults to the model's.
        validation_fraction: As for `open_splits`.
        epochs: Passes over the training images, to train all weights.
            Defaults to a number that follows that of the images.
        batch_size: Images per update, likewise.
        learning_rate: Peak of the learning rate, likewise.
        strategy: As for `train`.
        precision: As for `TrainConfig`.
        seed: Integer, seed of everything that is random.
        data_dir: As for `data.open_dataset`.

    Returns:
        A `FinetuneResult`.

    Raises:
        FileNotFoundError: If there is no such data or model.
        ValueError: If the data, the model and the settings don't go together.

    Example:

    ```python
    result = finetune("photos", "256_8", "runs/mine")
    result.report["kept"], result.report["validation"]["top1"]
    ```
    """
    start = time.perf_counter()
    run = _open_run(
        data,
        model,
        output,
        image_size=image_size,
        crop_fraction=crop_fraction,
        orientation=orientation,
        validation_fraction=validation_fraction,
        seed=seed,
        data_dir=data_dir,
    )
    run.splits.save(run.folder / TABLE_FILE)
    crops = read_crops(
        run.splits.train, run.size, run.crop_fraction, run.orientation
    )
    head = _fit_head(run, crops)
    candidates = {"head": head}
    why = _why_head_only(run, frozen)
    if not why:
        candidates["all"] = _train_all(
            run,
            crops,
            head,
            strategy=strategy,
            precision=precision,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
        )
    return _finish(run, candidates, why, time.perf_counter() - start)


@dataclasses.dataclass(frozen=True)
class _Run:
    """What all steps need to know."""

    splits: Splits
    source: keras.Model
    arguments: dict
    size: int
    crop_fraction: float
    orientation: str
    seed: int
    folder: pathlib.Path
    name: str

    def build(self, activation=None):
        """Builds the model with the source's body and a random head."""
        model = models.ConvMixer(
            **self.arguments,
            classes=len(self.splits.class_names),
            classifier_activation=activation,
        )
        copy_weights(_body(self.source), _body(model))
        return model

    def outputs(self, model, dataset):
        """Computes a model's outputs for the images as they are evaluated.

        Returns:
            Arrays of shape (images, outputs), and (images, classes), 1 for
            the classes of an image.
        """
        batches = data_package.evaluation_batches(
            dataset,
            self.size,
            _BATCH_SIZE,
            crop_fraction=self.crop_fraction,
            orientation=self.orientation,
        )
        apply = tf.function(lambda images: model(images, training=False))
        outputs, labels = [], []
        for images, known, weights in batches:
            real = weights.numpy() > 0
            outputs.append(apply(images).numpy()[real])
            labels.append(known.numpy()[real])
            progress.note(
                "classifying, image %d of %d",
                len(outputs) * _BATCH_SIZE,
                len(dataset),
            )
        labels = np.concatenate(labels)
        if labels.ndim == 1:
            labels = np.eye(len(self.splits.class_names), dtype=np.int64)[
                labels
            ]
        return np.concatenate(outputs), labels

    def measure(self, model):
        """Measures logits on validation and test images."""
        metrics = (
            multi_label_metrics
            if self.splits.multi_label
            else classification_metrics
        )
        return {
            name: metrics(*self.outputs(model, getattr(self.splits, name)))
            for name in self.splits.counts()
            if name != "train"
        }


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A model that gives logits, and what is known of it."""

    model: keras.Model
    report: dict


def _open_run(
    data,
    model,
    output,
    *,
    image_size,
    crop_fraction,
    orientation,
    validation_fraction,
    seed,
    data_dir,
):
    """Opens data and model, and checks that they go together."""
    splits = (
        data
        if isinstance(data, Splits)
        else open_splits(
            data,
            validation_fraction=validation_fraction,
            seed=seed,
            data_dir=data_dir,
        )
    )
    check_classes(splits.train, splits.validation)
    opened = (
        model
        if isinstance(model, models.OpenedModel)
        else models.open_model(model, image_size)
    )
    arguments = arguments_of(opened.model)
    height, width, channels = arguments["input_shape"]
    size = image_size or height
    if channels != 3 or height != width or size is None:
        raise ValueError(
            "Argument `model` must be of square images with 3 channels, which "
            "is what the data are made into; of one of any size, pass "
            f"`image_size`. Received: input_shape={arguments['input_shape']}"
        )
    folder = pathlib.Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    return _Run(
        splits,
        opened.model,
        {**arguments, "input_shape": (size, size, 3)},
        size,
        crop_fraction or opened.crop_fraction or data_package.CROP_FRACTION,
        orientation or opened.orientation or data_package.ORIENTATION,
        seed,
        folder,
        "model" if isinstance(model, models.OpenedModel) else os.fspath(model),
    )


def _body(model):
    """Returns the part of a ConvMixer up to its last block."""
    last = [x for x in model.layers if x.name.startswith("block_")][-1]
    return keras.Model(model.inputs, last.output)


def _fit_head(run, crops):
    """Fits the head to the features of the model as it is."""
    model = run.build()
    body = keras.Model(model.inputs, model.get_layer("avg_pool").output)
    features, targets = _features(run, body, crops)
    probe = fit_probe(
        features,
        targets,
        _loss_weights(run, targets),
        multi_label=run.splits.multi_label,
        seed=run.seed,
    )
    model.get_layer("predictions").set_weights([probe.kernel, probe.bias])
    return _Candidate(
        model,
        {
            "penalty": probe.penalty,
            "cross_validation": {
                f"{k:.2g}": v for k, v in probe.losses.items()
            },
            **run.measure(model),
        },
    )


def _loss_weights(run, targets):
    """Weights the classes of single labels equally, however many images."""
    if run.splits.multi_label:
        return np.ones(targets.shape)
    counts = targets.sum(axis=0)
    return (targets @ (len(targets) / len(counts) / counts))[:, None]


def _features(run, body, crops):
    """Computes the features of views of the training images."""
    if crops is None:
        features, targets = run.outputs(body, run.splits.train)
        return features[:, None], targets
    whole = np.tile(crops.whole(), [len(crops), 1])
    draws = np.random.default_rng(run.seed).random(
        (RANDOM_VIEWS, len(crops), 4)
    )
    views = [whole, mirrored(whole)] + [
        random_boxes(tf.constant(x, tf.float32), True).numpy() for x in draws
    ]
    apply = tf.function(
        lambda indices, boxes: body(crops.cut(indices, boxes), training=False)
    )
    results = []
    for boxes in views:
        rows = []
        for i in range(0, len(crops), _BATCH_SIZE):
            # The last batch is filled up, so that there is one trace.
            chosen = np.arange(i, i + _BATCH_SIZE) % len(crops)
            rows.append(
                apply(
                    tf.constant(chosen), tf.constant(boxes[chosen], tf.float32)
                ).numpy()
            )
            progress.note(
                "computing features, view %d of %d",
                len(results) + 1,
                len(views),
            )
        results.append(np.concatenate(rows)[: len(crops)])
    return np.stack(results, axis=1), run.splits.train.targets()


def _why_head_only(run, frozen):
    """Says why not all weights are trained, or returns `None`."""
    if frozen:
        return "only the classifier was to be trained"
    if len(run.splits.train) < MIN_IMAGES:
        return f"there are fewer than {MIN_IMAGES} training images"
    return None


def _train_all(
    run, crops, head, *, strategy, precision, epochs, batch_size, learning_rate
):
    """Trains all weights, from the head that was fitted."""
    images = len(run.splits.train)
    batch_size = batch_size or min(_BATCH_SIZE, images)
    updates = -(-(epochs or PASSES) * images // batch_size)
    stages = max(1, min(STAGES, updates // 50))
    config = TrainConfig(
        epochs=stages,
        steps_per_epoch=-(-updates // stages),
        batch_size=batch_size,
        learning_rate=learning_rate or LEARNING_RATE,
        schedule="cosine",
        warmup_epochs=stages / 10,
        epsilon=1e-8,
        weight_decay=0.01,
        layer_decay=LAYER_DECAY,
        precision=precision,
        seed=run.seed,
        save_every=100,
        tensorboard=False,
    )
    weights = head.model.get_weights()

    def build():
        model = run.build()
        model.set_weights(weights)
        if FREEZE_NORM:
            models.freeze_batch_norm(model)
        return model

    targets = run.splits.train.targets()
    targets = (targets * _loss_weights(run, targets)).astype("float32")
    model, _ = train(
        config,
        build,
        crop_inputs(config, crops, targets, True),
        evaluation_inputs(
            run.splits.validation,
            run.size,
            batch_size,
            run.crop_fraction,
            run.orientation,
        ),
        run.folder / "training",
        strategy,
    )
    return _Candidate(
        model,
        {
            "updates": config.total_steps,
            "batch_size": batch_size,
            "learning_rate": config.learning_rate,
            **run.measure(model),
        },
    )


def _finish(run, candidates, why, seconds):
    """Chooses, saves and reports."""
    figure = (
        "mean_average_precision"
        if run.splits.multi_label
        else "balanced_accuracy"
    )
    kept = max(
        candidates, key=lambda x: candidates[x].report["validation"][figure]
    )
    final = run.build("sigmoid" if run.splits.multi_label else "softmax")
    final.set_weights(candidates[kept].model.get_weights())
    path = run.folder / "model.keras"
    models.save_model(
        final, path, run.splits.class_names, run.crop_fraction, run.orientation
    )
    report = {
        "model": run.name,
        "kept": kept,
        "chosen_by": figure,
        "images": run.splits.counts(),
        "class_names": list(run.splits.class_names),
        "multi_label": run.splits.multi_label,
        **{
            k: v
            for k, v in candidates[kept].report.items()
            if k in ("validation", "test")
        },
        "candidates": {k: v.report for k, v in candidates.items()},
        "head_only_because": why,
        "image_size": run.size,
        "crop_fraction": run.crop_fraction,
        "orientation": run.orientation,
        "seed": run.seed,
        "seconds": seconds,
    }
    dump_json(run.folder / REPORT_FILE, report)
    return FinetuneResult(
        final, str(path), run.splits, run.crop_fraction, run.orientation, report
    )
