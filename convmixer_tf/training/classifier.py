"""Trains a classifier on labeled images and saves it."""

from __future__ import annotations

import dataclasses
import os
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from convmixer_tf import data
from convmixer_tf import models
from convmixer_tf.data.cropping import CROP_FRACTION
from convmixer_tf.data.decoding import ORIENTATION
from convmixer_tf.data.loading import Shard
from convmixer_tf.data.validation import check_range
from convmixer_tf.files import PathLike
from convmixer_tf.files import write_text
from convmixer_tf.model_card import run_card
from convmixer_tf.models.open_model import OpenedModel
from convmixer_tf.training.distillation import build_teacher
from convmixer_tf.training.inputs import local_replicas
from convmixer_tf.training.run_log import orientation_of_run
from convmixer_tf.training.strategy import is_chief
from convmixer_tf.training.strategy import make_strategy
from convmixer_tf.training.trainer import train
from convmixer_tf.validation import check_orientation
from convmixer_tf.validation import check_positive_integer

if TYPE_CHECKING:
    from convmixer_tf.data.augmentation import Augmentation
    from convmixer_tf.data.datasets import ImageList
    from convmixer_tf.data.records import ImageRecords
    from convmixer_tf.training.config import TrainConfig


def train_classifier(
    config: TrainConfig,
    build_model: Callable[[str | None], keras.Model],
    train_set: ImageList | ImageRecords,
    eval_set: ImageList | ImageRecords,
    augmentation: Augmentation,
    image_size: int,
    directory: PathLike,
    strategy: str | tf.distribute.Strategy = "auto",
    crop_fraction: float = CROP_FRACTION,
    orientation: str = ORIENTATION,
    notes: dict | None = None,
    *,
    open_teacher: Callable[[], OpenedModel] | None = None,
) -> tuple[keras.Model, dict]:
    """Trains an image classifier or resumes its training.

    A table (CSV) may give an image several labels or none. Such data needs
    `loss="sigmoid"` or `loss="focal"` in `config`, and epochs are compared by
    their mean average precision.

    At the end, `directory` holds the files of `train`, `model.keras` and its
    card `model.md`. The model outputs probabilities. Its file has the class
    names, the crop fraction and the orientation for `models.open_model`.

    Args:
        config: A `TrainConfig`.
        build_model: Function of a `classifier_activation` that builds a
            `keras.Model`.
        train_set: Training images, from `data.open_dataset`.
        eval_set: Evaluation images, from `data.open_dataset`.
        augmentation: A `data.Augmentation` for the training images.
        image_size: Side of the images, in pixels.
        directory: Path of the run folder, as for `train`.
        strategy: As for `train`. For several machines, pass the result of
            `make_strategy`, called before the data is opened.
        crop_fraction: Fraction of an image's side that is evaluated.
        orientation: As for `data.decode_image`, for training and evaluation. A
            run of an old version without `orientation` in its `config.json`
            read pixels as stored. It is resumed that way, and a warning is
            logged.
        notes: As for `train`, such as the arguments of the model.
        open_teacher: Function without arguments that returns the teacher for
            distillation, an `OpenedModel`, or `None`. See
            `distillation.build_teacher`.

    Returns:
        The saved model, and the summary from `train`.

    Raises:
        ValueError: If data, model and settings do not fit together.
    """
    check_positive_integer("image_size", image_size)
    check_range("crop_fraction", crop_fraction, 0.01, 1)
    check_orientation(orientation)
    orientation = orientation_of_run(directory, orientation)
    check_datasets(config, train_set, eval_set)
    if isinstance(strategy, str):
        strategy = make_strategy(strategy)

    def build_logits():
        model = build_model(None)
        _check_classes(model, train_set)
        return model

    def teacher():
        return build_teacher(open_teacher(), train_set.class_names, image_size)

    batch_size = config.batch_size // config.accumulation_steps
    model, summary = train(
        config,
        build_logits,
        training_inputs(
            config, train_set, augmentation, image_size, orientation
        ),
        evaluation_inputs(
            eval_set, image_size, batch_size, crop_fraction, orientation
        ),
        directory,
        strategy,
        notes={
            **data_notes(train_set, augmentation, image_size),
            "crop_fraction": crop_fraction,
            "orientation": orientation,
            **(notes or {}),
        },
        build_teacher=open_teacher and teacher,
    )
    final = build_model("softmax" if config.loss == "softmax" else "sigmoid")
    final.set_weights(model.get_weights())
    if is_chief(strategy):
        path = os.path.join(directory, "model.keras")
        models.save_model(
            final, path, train_set.class_names, crop_fraction, orientation
        )
        card = run_card(
            final,
            summary,
            train_set.class_names,
            len(train_set),
            len(eval_set),
            crop_fraction,
            orientation,
        )
        write_text(os.path.join(directory, "model.md"), card.text())
    return final, summary


def data_notes(train_set, augmentation, image_size):
    """Collects the properties of the images that the result depends on.

    Args:
        train_set: What `data.open_dataset` returns.
        augmentation: A `data.Augmentation`.
        image_size: Side of the images, in pixels.

    Returns:
        Dictionary, for the `notes` of `train` and `check_run`.
    """
    return {
        "augmentation": dataclasses.asdict(augmentation),
        "image_size": image_size,
        "train_images": len(train_set),
        "class_names": list(train_set.class_names),
    }


def training_inputs(
    config, train_set, augmentation, image_size, orientation=ORIENTATION
):
    """Builds the argument `train_batches` of `train`.

    Args:
        config: A `TrainConfig`.
        train_set: What `data.open_dataset` returns.
        augmentation: A `data.Augmentation`.
        image_size: Side of the images, in pixels.
        orientation: As for `data.decode_image`.

    Returns:
        A function (epoch, first_batch, context).
    """
    batch_size = config.batch_size // config.accumulation_steps
    weights = config.class_weight and balanced_weights(train_set)

    def train_batches(epoch, first_batch, context):
        batches = data.train_batches(
            train_set,
            augmentation,
            image_size,
            batch_size // context.num_replicas_in_sync,
            seed=config.seed,
            epoch=epoch,
            skip_steps=first_batch,
            replicas=local_replicas(context),
            orientation=orientation,
            shard=_shard(context),
        )
        if weights is None:
            return batches
        # The cross entropy is linear in the labels.
        return batches.map(
            lambda images, labels: (images, labels * np.float32(weights))
        )

    return train_batches


def balanced_weights(dataset):
    """Computes class weights that balance the classes.

    Their mean over the images is 1.

    Args:
        dataset: An `ImageList` whose images have one label each.

    Returns:
        Array of shape (classes,).
    """
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    return counts.sum() / len(counts) / counts


def evaluation_inputs(
    eval_set,
    image_size,
    batch_size,
    crop_fraction,
    orientation=ORIENTATION,
):
    """Builds the evaluation data for an `Evaluator`.

    Args:
        eval_set: What `data.open_dataset` returns.
        image_size: Side of the images, in pixels.
        batch_size: Images per batch, over all replicas.
        crop_fraction: Fraction of the side of an image that is evaluated.
        orientation: As for `data.decode_image`.

    Returns:
        A function of a `tf.distribute.InputContext`.
    """

    def eval_batches(context):
        return data.evaluation_batches(
            eval_set,
            image_size,
            batch_size // context.num_input_pipelines,
            crop_fraction=crop_fraction,
            orientation=orientation,
            shard=_shard(context),
        )

    return eval_batches


def steps_per_epoch(dataset: ImageList | ImageRecords, batch_size: int) -> int:
    """Returns the number of updates in an epoch, without partial batches.

    Args:
        dataset: What `data.open_dataset` returns.
        batch_size: Integer, images per update.

    Returns:
        Integer.

    Raises:
        ValueError: If the batch size is not positive, or there is no full
            batch.
    """
    check_positive_integer("batch_size", batch_size)
    steps = len(dataset) // batch_size
    if steps < 1:
        raise ValueError(
            f"Argument `batch_size` must be at most {len(dataset)}, the number "
            f"of training images. Received: batch_size={batch_size}"
        )
    return steps


def check_datasets(config, train_set, eval_set):
    """Raises `ValueError` if data and settings do not fit together.

    Args:
        config: A `TrainConfig`.
        train_set: What `data.open_dataset` returns.
        eval_set: The same, of the images to evaluate on.
    """
    check_classes(train_set, eval_set)
    _check_loss(config, train_set, eval_set)
    most = steps_per_epoch(train_set, config.batch_size)
    left_out = len(train_set) - most * config.batch_size
    if left_out > len(train_set) / 10:
        logging.warning(
            "%d of %d training images do not fill a batch and are dropped from "
            "each epoch, different ones each time. Decrease `batch_size` to "
            "use more.",
            left_out,
            len(train_set),
        )
    if config.steps_per_epoch > most:
        raise ValueError(
            f"Argument `steps_per_epoch` must be at most {most}, for "
            f"{len(train_set)} images in batches of {config.batch_size}. "
            f"Received: steps_per_epoch={config.steps_per_epoch}"
        )


def _check_loss(config, train_set, eval_set):
    """Raises `ValueError` if labels and loss do not fit together."""
    several = train_set.multi_label
    if several != eval_set.multi_label:
        raise ValueError(
            "The training and the evaluation images must both be "
            "multi-label, or both have one label each. Open both from one "
            f"table (CSV). Received: multi_label={several} and {not several}"
        )
    if several and config.loss == "softmax":
        raise ValueError(
            "The data has images with several labels, or with none. Pass "
            'loss="sigmoid" or loss="focal". Received: loss="softmax"'
        )
    if config.class_weight and not hasattr(train_set, "labels"):
        raise ValueError(
            "Argument `class_weight` needs the labels of all images. They are "
            "not known for TFRecords above 1 GiB. Received: "
            f"class_weight={config.class_weight!r}"
        )


def check_classes(
    train_set: ImageList | ImageRecords, eval_set: ImageList | ImageRecords
) -> None:
    """Raises `ValueError` unless both sets have the same valid classes.

    Args:
        train_set: What `data.open_dataset` returns.
        eval_set: The same, of the images to evaluate on.
    """
    if train_set.class_names != eval_set.class_names:
        raise ValueError(
            "The training and the evaluation images must have the same "
            f"classes. Received: {_brief(train_set)} and {_brief(eval_set)}"
        )
    if len(train_set.class_names) < 2:
        raise ValueError(
            "There must be at least two classes, each in a separate folder. "
            f"Received: {_brief(train_set)}"
        )
    _check_all_classes(train_set)


def _check_all_classes(dataset):
    """Raises `ValueError` if a class has no images, if labels are known."""
    labels = getattr(dataset, "labels", None)
    if labels is None:
        return
    labels = labels.numpy()
    if labels.ndim == 2:
        counts = labels.sum(axis=0)
    else:
        counts = np.bincount(labels, minlength=len(dataset.class_names))
    if len(counts) > len(dataset.class_names):
        raise ValueError(
            f"A training image has the label {len(counts) - 1}, but there are "
            f"{len(dataset.class_names)} class names: {_brief(dataset)}"
        )
    names = zip(dataset.class_names, counts, strict=True)
    missing = [name for name, count in names if not count]
    if missing:
        raise ValueError(
            f"There are no training images of {', '.join(missing[:5])}"
            f"{' ...' if missing[5:] else ''}: {len(missing)} of "
            f"{len(counts)} classes. Add images, or remove the folders of "
            "these classes from all splits."
            f"{_twins(missing, dataset.class_names)}"
        )


def _twins(missing, class_names):
    """Describes a class that looks like a missing one, for an error."""

    def looks(name):
        return unicodedata.normalize("NFKC", name).strip().casefold()

    for name in missing:
        for other in class_names:
            if other != name and looks(other) == looks(name):
                return (
                    f" The names {name!a} and {other!a} differ only in case, "
                    "spaces or Unicode normalization. Use the same name for "
                    "both folders."
                )
    return ""


def _check_classes(model, dataset):
    count = model.output_shape[-1]
    if count != len(dataset.class_names):
        raise ValueError(
            f"The model has {count} classes, but the data has "
            f"{len(dataset.class_names)}: {_brief(dataset)}. Build the model "
            f"with classes={len(dataset.class_names)}."
        )


def _brief(dataset):
    names = dataset.class_names
    return ", ".join(names[:3]) + (f" ... ({len(names)})" if names[3:] else "")


def _shard(context):
    return Shard(context.num_input_pipelines, context.input_pipeline_id)
