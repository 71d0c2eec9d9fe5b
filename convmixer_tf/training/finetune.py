"""Fine-tunes a ConvMixer on a user's images: the head first, then all."""

import csv
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from convmixer_tf import data as image_data
from convmixer_tf import models
from convmixer_tf import progress
from convmixer_tf.data.cropping import CROP_FRACTION
from convmixer_tf.data.decoding import ORIENTATION
from convmixer_tf.data.splits import VALIDATION_FRACTION
from convmixer_tf.data.splits import Splits
from convmixer_tf.data.splits import open_splits
from convmixer_tf.data.validation import check_range
from convmixer_tf.files import PathLike
from convmixer_tf.files import dump_json
from convmixer_tf.files import write_text
from convmixer_tf.model_card import ModelCard
from convmixer_tf.models.copying import copy_weights
from convmixer_tf.models.open_model import OpenedModel
from convmixer_tf.models.probabilities import probabilities
from convmixer_tf.models.rebuilding import arguments_of
from convmixer_tf.training.classifier import balanced_weights
from convmixer_tf.training.classifier import check_classes
from convmixer_tf.training.classifier import evaluation_inputs
from convmixer_tf.training.classifier import training_inputs
from convmixer_tf.training.config import TrainConfig
from convmixer_tf.training.crops import AUGMENTATION
from convmixer_tf.training.crops import crop_inputs
from convmixer_tf.training.crops import mirrored
from convmixer_tf.training.crops import read_crops
from convmixer_tf.training.metrics import classification_metrics
from convmixer_tf.training.metrics import multi_label_metrics
from convmixer_tf.training.probe import fit_probe
from convmixer_tf.training.probe import losses_of
from convmixer_tf.training.run_log import check_same
from convmixer_tf.training.trainer import train
from convmixer_tf.validation import check_orientation
from convmixer_tf.validation import check_positive_integer

REPORT_FILE = "finetune.json"
SETTINGS_FILE = "settings.json"
TABLE_FILE = "images.csv"
VALIDATION_FILE = "validation.csv"
# With fewer training images, there are too few validation images to compare.
MIN_IMAGES = 100
# Classes are weighted if one has this many times the images of another.
IMBALANCE = 5
# Training of all weights: passes over few images; image limit for many.
PASSES, SEEN = 10, 20_000
STAGES = 5  # Number of evaluations.
LEARNING_RATE = 2e-3
# Candidate temperatures for the comparison of losses.
TEMPERATURES = 2.0 ** np.arange(-1, 2.1, 0.25)

_BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True)
class FinetuneResult:
    """A fine-tuned model and its report.

    Attributes:
        model: The `keras.Model`, with probabilities as its output.
        path: Path of its file, `model.keras` in the run folder.
        splits: What `data.open_splits` returned.
        crop_fraction: Fraction of an image's side that is evaluated.
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
    model: str | OpenedModel,
    output: str,
    *,
    frozen: bool = False,
    image_size: int | None = None,
    crop_fraction: float | None = None,
    orientation: str | None = None,
    validation_fraction: float = VALIDATION_FRACTION,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    strategy: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    data_dir: str | None = None,
) -> FinetuneResult:
    """Fine-tunes a ConvMixer on images with other classes.

    First, a linear classifier, the head, is fitted to the features of the
    pretrained model. Then, unless `frozen`, all weights are trained. The second
    model is kept if its loss on the validation images is lower and its accuracy
    is not lower; otherwise the first one is kept. The losses are computed after
    temperature scaling because training makes a model overconfident before it
    lowers its accuracy. If the first model is kept, its head is fitted again at
    the end, with the validation images included. All validation results are
    from models that did not learn from the validation images. No model learns
    from test images.

    `output` then holds `model.keras`, its card `model.md`, the report
    `finetune.json`, the list of images `images.csv`, and `validation.csv`, the
    probabilities of the validation images in the report. To resume a stopped
    run, make the same call.

    Args:
        data: `Splits`, or an argument of `data.open_splits`: a folder with a
            folder for each class, with or without splits; a CSV table; or the
            name of a data set.
        model: An `OpenedModel` of a ConvMixer, or an argument of `open_model`.
        output: Path of the run folder.
        frozen: Whether to train only the head.
        image_size: Side of the images, in pixels. Defaults to the model's.
        crop_fraction: Fraction of the side of an image that is evaluated.
            Defaults to the model's.
        orientation: As for `data.decode_image`. Defaults to the model's.
        validation_fraction: As for `data.open_splits`.
        epochs: Passes over the training images when all weights are trained.
            Defaults to 10, and to fewer for more than 2,000 images.
        batch_size: Images per update. Defaults to 32, or 64 for more than
            2,000 images.
        learning_rate: Peak of the learning rate for all weights. Defaults to
            2e-3.
        strategy: As for `train`.
        precision: As for `TrainConfig`.
        seed: Integer, the seed of all randomness.
        data_dir: As for `data.open_dataset`.

    Returns:
        A `FinetuneResult`.

    Raises:
        FileNotFoundError: If the data or the model does not exist.
        ValueError: If the data, the model and the settings do not fit together,
            or if `output` holds a run with other settings.

    Example:

    ```python
    result = finetune("photos", "256_8", "runs/mine")
    result.report["kept"], result.report["validation"]["top1"]
    ```
    """
    start = time.perf_counter()
    for argument, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value is not None:
            check_positive_integer(argument, value)
    if isinstance(data, Splits):
        splits = data
    else:
        splits = open_splits(
            data,
            validation_fraction=validation_fraction,
            seed=seed,
            data_dir=data_dir,
        )
    check_classes(splits.train, splits.validation)
    if isinstance(model, OpenedModel):
        opened, name = model, "a model"
    else:
        opened, name = models.open_model(model, image_size), os.fspath(model)
    run = _Run(
        splits,
        opened,
        image_size or opened.model.input_shape[1],
        crop_fraction or opened.crop_fraction or CROP_FRACTION,
        orientation or opened.orientation or ORIENTATION,
        seed,
        pathlib.Path(output),
        name,
    )
    why = _why_head_only(splits.train, frozen)
    config = _training_config(
        len(splits.train),
        epochs,
        batch_size,
        LEARNING_RATE if learning_rate is None else learning_rate,
        precision,
        seed,
    )
    built = run.open()
    crops = run.read(splits.train)
    body = _Body(run, built)
    features, targets = body.views(splits.train, crops)
    head = _fit_head(run, body, features, targets)
    _log("The head alone", head)
    candidates = {"head": head}
    if why is None:
        run.save(head.model)  # Available if this process is stopped.
        try:
            trained = _train_all(run, crops, head, config, strategy)
        except FloatingPointError as error:
            logging.warning("Training all weights failed: %s", error)
            why = str(error)
        else:
            _log("All weights", trained)
            candidates["all"] = trained
    kept = "all" if _is_better(candidates.get("all"), head) else "head"
    final, test = candidates[kept].model, candidates[kept].metrics.get("test")
    run.save_validation(candidates[kept].logits)
    if kept == "head":
        _refit_head(run, body, head, features, targets, crops is not None)
        if splits.test is not None:
            test = run.metrics(*body.logits(splits.test))
    report = {
        "model": run.name,
        "kept": kept,
        "validation": candidates[kept].metrics["validation"],
        "test": test,
        "refitted": kept == "head",
        "candidates": {
            name: {**candidate.metrics, **candidate.settings}
            for name, candidate in candidates.items()
        },
        "head_only_because": why,
        "images": splits.counts(),
        "images_per_class": splits.counts_per_class(),
        "multi_label": splits.multi_label,
        **run.settings(),
        "seconds": time.perf_counter() - start,
    }
    return run.finish(final, report)


@dataclasses.dataclass(frozen=True)
class _Run:
    """The data that all steps need, and the files of the run."""

    splits: Splits
    opened: OpenedModel
    size: int | None
    crop_fraction: float
    orientation: str
    seed: int
    folder: pathlib.Path
    name: str

    def build(self, activation=None):
        """Builds a model with the opened model's body and a random head."""
        arguments = arguments_of(self.opened.model)
        shape = arguments.pop("input_shape")
        if self.size is None or shape[0] != shape[1] or shape[2] != 3:
            raise ValueError(
                "Argument `model` must take square images with 3 channels, "
                "like the data. If it takes images of any size, pass "
                f"`image_size`. Received: images of {shape}"
            )
        model = models.ConvMixer(
            **arguments,
            input_shape=(self.size, self.size, 3),
            classes=len(self.splits.class_names),
            classifier_activation=activation,
            name=self.opened.model.name,
        )
        copy_weights(_blocks(self.opened.model), _blocks(model))
        return model

    def settings(self):
        """Returns all settings that the result depends on, as JSON values."""
        digest = hashlib.sha1()
        for weight in self.opened.model.get_weights():
            digest.update(weight.tobytes())
        return {
            "class_names": list(self.splits.class_names),
            "list_of_images": self.splits.digest(),
            "weights": digest.hexdigest(),
            "image_size": self.size,
            "crop_fraction": self.crop_fraction,
            "orientation": self.orientation,
            "seed": self.seed,
        }

    def open(self):
        """Checks everything, creates the folder and returns the model."""
        check_range("crop_fraction", self.crop_fraction, 0.01, 1)
        check_orientation(self.orientation)
        model = self.build()
        if self.folder.exists() and not self.folder.is_dir():
            raise NotADirectoryError(
                "The output of a run (`--output`) must be a folder. Received: "
                "the file "
                f"`{self.folder}`"
            )
        path, settings = self.folder / SETTINGS_FILE, self.settings()
        if path.exists():
            check_same(self.folder, json.loads(path.read_text()), settings)
        elif (self.folder / "model.keras").exists():
            raise FileExistsError(
                f"The folder `{self.folder}` holds another model. Choose "
                "another folder (`--output`)."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        dump_json(path, settings)
        self.splits.save(self.folder / TABLE_FILE)
        return model

    def read(self, dataset):
        """Reads images into memory, or returns `None` if there are too many."""
        return read_crops(
            dataset, self.size, self.crop_fraction, self.orientation
        )

    def outputs(self, apply, dataset):
        """Applies a function to images after the evaluation transform.

        Returns:
            Array of shape (images, outputs); array of shape (images, classes),
            with 1 for the classes of an image.
        """
        batches = image_data.evaluation_batches(
            dataset,
            self.size,
            _BATCH_SIZE,
            crop_fraction=self.crop_fraction,
            orientation=self.orientation,
        )
        outputs, labels = [], []
        for number, (images, known, weights) in enumerate(batches):
            done = number * _BATCH_SIZE
            progress.note("classifying image %d of %d", done, len(dataset))
            real = weights.numpy() > 0
            outputs.append(apply(images).numpy()[real])
            labels.append(known.numpy()[real])
        labels = np.concatenate(labels)
        if labels.ndim == 1:
            labels = np.eye(len(self.splits.class_names), dtype=int)[labels]
        return np.concatenate(outputs), labels

    def candidate(self, model, settings, outputs):
        """Evaluates a model that returns logits.

        Args:
            model: The `keras.Model`.
            settings: Dictionary, the settings it was trained with.
            outputs: Function from images that are not trained on to logits and
                labels.
        """
        logits, targets = outputs(self.splits.validation)
        metrics = {"validation": self.metrics(logits, targets)}
        if self.splits.test is not None:
            metrics["test"] = self.metrics(*outputs(self.splits.test))
        metrics["validation"]["loss"] = min(
            self._loss(logits / t, targets) for t in TEMPERATURES
        )
        return _Candidate(model, settings, metrics, logits)

    def _loss(self, logits, targets):
        """Computes the loss, with the class weights of the training."""
        several = self.splits.multi_label
        losses = losses_of(logits, targets, several)[0].mean(axis=-1)
        if not several:
            losses = losses * (targets @ _class_weights(self.splits.train))
        return float(losses.mean())

    def metrics(self, logits, targets):
        """Computes the metrics of outputs."""
        if self.splits.multi_label:
            return multi_label_metrics(logits, targets)
        return classification_metrics(logits, targets)

    def save_validation(self, logits):
        """Writes the probabilities of the validation images."""
        if self.splits.multi_label:
            rows = (1 + np.tanh(logits / 2)) / 2
        else:
            rows = probabilities(logits, "linear")
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(self.splits.class_names)
        writer.writerows(rows.tolist())
        write_text(self.folder / VALIDATION_FILE, text.getvalue())

    def save(self, model):
        """Saves a model of logits with probabilities as its output."""
        name = "sigmoid" if self.splits.multi_label else "softmax"
        final = self.build(name)
        final.set_weights(model.get_weights())
        path = self.folder / "model.keras"
        models.save_model(
            final,
            path,
            self.splits.class_names,
            self.crop_fraction,
            self.orientation,
        )
        return final, path

    def finish(self, model, report):
        """Writes the model, its card and the report."""
        final, path = self.save(model)
        card = _card(self, report)
        write_text(path.with_suffix(".md"), card.text())
        dump_json(self.folder / REPORT_FILE, report)
        return FinetuneResult(
            final,
            str(path),
            self.splits,
            self.crop_fraction,
            self.orientation,
            report,
        )


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A model that returns logits, with its results."""

    model: keras.Model
    settings: dict
    metrics: dict
    logits: np.ndarray  # Of the validation images.


def read_validation(folder: PathLike) -> np.ndarray:
    """Reads the probabilities of a run's validation images.

    Args:
        folder: Path of the folder that `finetune` wrote to.

    Returns:
        Float32 array of shape (images, classes), of a model that did not learn
        from these images.
    """
    path = pathlib.Path(folder) / VALIDATION_FILE
    with open(path, encoding="utf-8", newline="") as file:
        return np.array(list(csv.reader(file))[1:], "float32")


def _blocks(model):
    """Returns the part of a ConvMixer up to its last block."""
    blocks = [x for x in model.layers if x.name.startswith("block_")]
    return keras.Model(model.inputs, blocks[-1].output)


def _applied(model):
    """Returns a function that applies a model in inference mode."""
    return tf.function(lambda images: model(images, training=False))


class _Body:
    """A model's features, computed once for each image, and its head.

    Args:
        run: The `_Run`.
        model: Model whose head is fitted. Its other weights stay the same.
    """

    def __init__(self, run, model):
        self.model = model
        self._run = run
        self._apply = _applied(
            keras.Model(model.inputs, model.get_layer("avg_pool").output)
        )
        self._known = {}

    def fit(self, probe):
        """Uses a `Probe` as the head."""
        self.model.get_layer("predictions").set_weights(
            [probe.kernel, probe.bias]
        )

    def logits(self, dataset):
        """Computes the model's outputs and the labels."""
        if id(dataset) not in self._known:
            found = self._run.outputs(self._apply, dataset)
            self._known[id(dataset)] = found
        features, labels = self._known[id(dataset)]
        kernel, bias = self.model.get_layer("predictions").get_weights()
        return features @ kernel + bias, labels

    def views(self, dataset, crops):
        """Computes features of images, and of flipped images if in memory.

        Returns:
            Array of shape (images, views, features); array of shape (images,
            classes), with 1 for the classes of an image.
        """
        if crops is None:
            features, targets = self._run.outputs(self._apply, dataset)
            return features[:, None], targets
        views = []
        for box in (crops.whole(), mirrored(crops.whole())):
            boxes = tf.constant(np.tile(box, [_BATCH_SIZE, 1]), tf.float32)
            rows = []
            for first in range(0, len(crops), _BATCH_SIZE):
                progress.note("features of image %d of %d", first, len(crops))
                # The last batch is padded, so that there is only one trace.
                indices = np.arange(first, first + _BATCH_SIZE) % len(crops)
                rows.append(self._apply(crops.cut(indices, boxes)).numpy())
            views.append(np.concatenate(rows)[: len(crops)])
        return np.stack(views, axis=1), dataset.targets()


def _fit_head(run, body, features, targets):
    """Fits the head to the features of the training images."""
    progress.note("fitting the classifier, by cross-validation")
    probes = [
        fit_probe(
            features[:, :views],
            targets,
            _loss_weights(run.splits, targets),
            multi_label=run.splits.multi_label,
            seed=run.seed,
        )
        for views in range(1, features.shape[1] + 1)
    ]
    # Flipped digits are other characters, so cross-validation decides.
    probe = min(probes, key=lambda x: min(x.losses.values(), default=0))
    body.fit(probe)
    settings = {
        "penalty": probe.penalty,
        "mirrored": probe is not probes[0],
        "cross_validation": {f"{k:.2g}": v for k, v in probe.losses.items()},
    }
    return run.candidate(body.model, settings, body.logits)


def _refit_head(run, body, head, features, targets, in_memory):
    """Fits the head of a candidate again, with the validation images."""
    validation = run.splits.validation
    crops = run.read(validation) if in_memory else None
    more, more_targets = body.views(validation, crops)
    views = min(features.shape[1], more.shape[1])
    views = views if head.settings["mirrored"] else 1
    targets = np.concatenate([targets, more_targets])
    body.fit(
        fit_probe(
            np.concatenate([features[:, :views], more[:, :views]]),
            targets,
            _loss_weights(run.splits, targets),
            multi_label=run.splits.multi_label,
            penalty=head.settings["penalty"],
        )
    )


def _class_weights(dataset):
    """Returns balancing class weights if the class sizes differ widely."""
    equal = np.ones(len(dataset.class_names))
    if dataset.multi_label or not hasattr(dataset, "labels"):
        return equal
    weights = balanced_weights(dataset)
    return equal if weights.max() < IMBALANCE * weights.min() else weights


def _loss_weights(splits, targets):
    """Returns a weight for each image, or for each label if multi-label."""
    if splits.multi_label:
        return np.ones(targets.shape)
    return (targets @ _class_weights(splits.train))[:, None]


def _why_head_only(dataset, frozen):
    """Returns why only the head is trained, or `None`."""
    if frozen:
        return "the backbone is frozen"
    if len(dataset) < MIN_IMAGES:
        return f"there are fewer than {MIN_IMAGES} training images"
    return None


def _training_config(
    images, epochs, batch_size, learning_rate, precision, seed
):
    """Chooses the settings for training all weights."""
    passes = epochs or max(1, min(PASSES, SEEN // images))
    batch_size = batch_size or (64 if images > SEEN / PASSES else _BATCH_SIZE)
    batch_size = min(batch_size, images)
    updates = -(-passes * images // batch_size)
    stages = max(1, min(STAGES, updates // 50))
    return TrainConfig(
        epochs=stages,
        steps_per_epoch=-(-updates // stages),
        batch_size=batch_size,
        learning_rate=learning_rate,
        schedule="cosine",
        warmup_epochs=stages / 10,
        epsilon=1e-8,
        weight_decay=0.01,
        layer_decay=0.8,
        precision=precision,
        seed=seed,
        save_every=100,
        tensorboard=False,
    )


def _train_all(run, crops, head, config, strategy):
    """Trains all weights, starting from the fitted head."""
    splits, mirror = run.splits, head.settings["mirrored"]
    if splits.multi_label:
        config = dataclasses.replace(config, loss="sigmoid")
    weights = head.model.get_weights()

    def build():
        model = run.build()
        model.set_weights(weights)
        # Few images give poor estimates of the statistics.
        models.freeze_batch_norm(model)
        return model

    if crops is None:
        # With many images, an epoch is one pass.
        updates = config.total_steps
        steps = len(splits.train) // config.batch_size
        epochs = max(1, round(updates / steps))
        config = dataclasses.replace(
            config,
            epochs=epochs,
            steps_per_epoch=steps,
            warmup_epochs=epochs / 10,
        )
        batches = training_inputs(
            config,
            splits.train,
            dataclasses.replace(AUGMENTATION, flip=0.5 * mirror),
            run.size,
            run.orientation,
        )
        weights_of = tf.constant(_class_weights(splits.train), tf.float32)

        def inputs(*arguments):
            return batches(*arguments).map(
                lambda images, labels: (images, labels * weights_of)
            )
    else:
        targets = splits.train.targets()
        rows = targets * _loss_weights(splits, targets)
        inputs = crop_inputs(config, crops, rows.astype("float32"), mirror)
    model, _ = train(
        config,
        build,
        inputs,
        evaluation_inputs(
            splits.validation,
            run.size,
            config.batch_size,
            run.crop_fraction,
            run.orientation,
        ),
        run.folder / "training",
        strategy,
        notes=run.settings(),
    )
    settings = {
        "updates": config.total_steps,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
    }
    apply = _applied(model)
    return run.candidate(model, settings, lambda x: run.outputs(apply, x))


def _is_better(new, old):
    """Returns whether a candidate has a lower loss and no lower accuracy.

    With few images, the loss is more informative than the accuracy.
    """
    if new is None:
        return False
    new, old = new.metrics["validation"], old.metrics["validation"]
    name = "top1" if "top1" in new else "mean_average_precision"
    return new["loss"] < old["loss"] and new[name] >= old[name]


def _log(name, candidate):
    """Logs the results of a candidate."""
    metrics = candidate.metrics["validation"]
    if "top1" in metrics:
        low, high = metrics["interval"]
        logging.info(
            "%s: top-1 %.1f %% on %d validation images (95 %% interval %.1f to "
            "%.1f), by chance %.1f %%",
            name,
            100 * metrics["top1"],
            metrics["images"],
            *(100 * low, 100 * high, 100 * metrics["chance"]),
        )
    else:
        logging.info(
            "%s: mean average precision %.3f on %d validation images, by "
            "chance %.3f",
            name,
            metrics["mean_average_precision"],
            metrics["images"],
            metrics["chance"],
        )


def _card(run, report):
    """Creates the model card."""
    metrics = report["validation"]
    if run.splits.multi_label:
        precision = metrics["mean_average_precision"]
        figures = {"mean average precision": f"{precision:.4f}"}
        output = "independent probabilities of the classes"
    else:
        low, high = metrics["interval"]
        figures = {
            "top-1": f"{metrics['top1']:.2%} ({low:.1%} to {high:.1%})",
            "balanced accuracy": f"{metrics['balanced_accuracy']:.2%}",
            "top-1 by chance": f"{metrics['chance']:.2%}",
        }
        output = "probabilities of the classes"
    measured = f"on {metrics['images']:,} validation images (95 % interval)."
    images = len(run.splits.train)
    if report["refitted"]:
        measured += (
            " Then the classifier was fitted again, including these images."
        )
        images += metrics["images"]
    return ModelCard(
        title="Fine-tuned ConvMixer",
        about="A ConvMixer with a new classifier"
        + (", all weights trained." if report["kept"] == "all" else "."),
        input=f"{run.size} x {run.size} pixels in [0, 255]; the central "
        f"{run.crop_fraction:g} of the shorter side of an image",
        output=output,
        class_names=run.splits.class_names,
        trained_on=f"{images:,} images.",
        figures=figures,
        measured=measured,
    )
