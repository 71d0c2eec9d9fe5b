"""Top-1, top-5 and per-class accuracy, with every image counted once."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from convmixer_tf import progress
from convmixer_tf.models.probabilities import are_probabilities
from convmixer_tf.models.probabilities import probabilities
from convmixer_tf.training.inputs import distribute
from convmixer_tf.training.loss import binary_cross_entropy
from convmixer_tf.training.loss import cross_entropy
from convmixer_tf.training.metrics import multi_label_metrics
from convmixer_tf.training.strategy import resolve_jit_compile


class ScoreAccumulator:
    """Accumulates the scores of a classifier over batches.

    Args:
        classes: Integer, the number of classes.
    """

    def __init__(self, classes):
        self.confusion = np.zeros((classes, classes), np.int64)
        self.top5 = np.zeros(classes, np.int64)
        self.images = 0
        self.loss = 0.0
        self.several = []

    def add(self, weights, labels, predictions, ranks, losses, *several):
        """Adds a batch.

        Args:
            weights: Array of shape (batch,). Images with weight 0 are padding
                and are not counted.
            labels: Integer array of shape (batch,).
            predictions: Integer array of shape (batch,), the top class.
            ranks: Integer array of shape (batch,), the number of classes that
                score higher than the label.
            losses: Float array of shape (batch,).
            *several: For multi-label data, the labels and the logits, both
                of shape (batch, classes).
        """
        real = weights > 0
        self.images += int(real.sum())
        self.loss += float(np.sum(losses[real], dtype=np.float64))
        if several:
            self.several.append([x[real] for x in several])
            real = real & several[0].any(axis=-1)
        labels = labels[real]
        np.add.at(self.confusion, (labels, predictions[real]), 1)
        np.add.at(self.top5, labels, ranks[real] < 5)

    def scores(self):
        """Computes the `Scores`.

        Raises:
            ValueError: If there were no images.
        """
        if not self.images:
            raise ValueError("There are no images to evaluate.")
        labeled = max(int(self.confusion.sum()), 1)
        precision = None
        if self.several:
            targets, logits = map(
                np.concatenate, zip(*self.several, strict=True)
            )
            found = multi_label_metrics(logits, targets)
            precision = found["mean_average_precision"]
        per_class = self.confusion.sum(axis=1)
        with np.errstate(invalid="ignore"):
            recall = np.diag(self.confusion) / per_class
        return Scores(
            images=self.images,
            top1=float(np.trace(self.confusion)) / labeled,
            top5=float(self.top5.sum()) / labeled,
            loss=self.loss / self.images,
            per_class=recall,
            confusion=self.confusion,
            mean_average_precision=precision,
        )


@dataclasses.dataclass(frozen=True)
class Scores:
    """The result of an evaluation.

    In multi-label data, an image's label with the highest score counts as its
    label, except for the loss and the mean average precision.

    Attributes:
        images: Integer, the number of images.
        top1: Fraction of the images whose top class is the label. Images
            without a label are left out.
        top5: Fraction of the images whose label is among the top five.
        loss: Mean cross-entropy against the labels, in nats.
        per_class: Array of shape (classes,), the accuracy of each class; NaN
            for a class without images.
        confusion: Integer array of shape (classes, classes), the number of
            images by label and by prediction.
        mean_average_precision: Mean of the average precisions of the classes
            that have images, or `None` if each image has one label.
    """

    images: int
    top1: float
    top5: float
    loss: float
    per_class: np.ndarray
    confusion: np.ndarray
    mean_average_precision: float | None = None

    @property
    def balanced_accuracy(self):
        """Mean of the classes' accuracies, of the classes with images."""
        return float(np.nanmean(self.per_class))

    def summary(self):
        """Returns the scalar scores by name."""
        names = ("images", "top1", "top5", "loss", "mean_average_precision")
        figures = {name: getattr(self, name) for name in names}
        return {k: v for k, v in figures.items() if v is not None}


def main_metric(figures):
    """Returns the name of the metric that epochs are compared by.

    Args:
        figures: Dictionary, a row of a run's history.
    """
    names = ("mean_average_precision", "balanced_accuracy", "top1")
    return next(name for name in names if name in figures)


def judge(labels, logits):
    """Compares a batch of logits with the labels, on the device.

    If a class has the same score as the label, the class with the lower index
    wins, so that a constant prediction is correct only for the first class.

    If an image has several labels, the one with the highest score is used.

    Args:
        labels: Integer tensor of shape (batch,); or of shape (batch,
            classes), 1 for the classes of an image.
        logits: Tensor of shape (batch, classes).

    Returns:
        The arguments of `ScoreAccumulator.add` after the weights, as tensors.
    """
    labels = tf.convert_to_tensor(labels)  # Also accepts NumPy arrays.
    logits = tf.cast(logits, tf.float32)
    if labels.shape.rank == 2:
        losses = binary_cross_entropy(labels, logits)
        known = tf.where(labels > 0, logits, logits.dtype.min)
        labels = tf.argmax(known, axis=-1, output_type=tf.int32)
    else:
        losses = cross_entropy(labels, logits)
    labels = tf.cast(labels, tf.int32)
    own = tf.gather(logits, labels, batch_dims=1)[:, None]
    earlier = tf.range(logits.shape[-1])[None] < labels[:, None]
    # In this form, a NaN ranks above everything.
    better = ~(logits <= own) | ((logits == own) & earlier)
    ranks = tf.reduce_sum(tf.cast(better, tf.int32), axis=-1)
    predictions = tf.argmax(logits, axis=-1, output_type=tf.int32)
    return labels, predictions, ranks, losses


class Evaluator:
    """Evaluates a model on all replicas.

    Args:
        model: A `keras.Model` that returns logits.
        strategy: The `tf.distribute.Strategy` in whose scope it was built.
        jit_compile: As in `TrainConfig`.
    """

    def __init__(
        self,
        model: keras.Model,
        strategy: tf.distribute.Strategy,
        jit_compile: bool | None = None,
    ) -> None:
        self.model = model
        self.strategy = strategy
        self._on_replica: Callable = self._replica_judge
        if resolve_jit_compile(jit_compile, strategy):
            self._on_replica = tf.function(self._on_replica, jit_compile=True)
        self._judge = tf.function(self._run)

    def __call__(self, eval_batches):
        """Evaluates the model.

        Args:
            eval_batches: Function of a `tf.distribute.InputContext` that
                returns a `tf.data.Dataset` of this worker's images, labels (see
                `judge`) and weights. Padding has weight 0. All batches have the
                same size, and all workers have the same number of batches.

        Returns:
            `Scores`.

        Raises:
            ValueError: If there is no image.
        """
        accumulator = ScoreAccumulator(self.model.output_shape[-1])
        for number, batch in enumerate(
            distribute(self.strategy, eval_batches), 1
        ):
            progress.note("evaluating, batch %d", number)
            accumulator.add(*(value.numpy() for value in self._judge(batch)))
        return accumulator.scores()

    def _run(self, batch):
        results = self.strategy.run(self._on_replica, args=batch)
        return [self.strategy.gather(value, axis=0) for value in results]

    def _replica_judge(self, images, labels, weights):
        logits = self.model(images, training=False)
        several = (labels, logits) if labels.shape.rank == 2 else ()
        return weights, *judge(labels, logits), *several


def evaluate_function(
    predict: Callable,
    batches: tf.data.Dataset,
    classes: int,
    indices: np.ndarray | None = None,
    activation: str = "unknown",
) -> Scores:
    """Evaluates a function that classifies images, on one device.

    Args:
        predict: Function from images, a float32 array of shape (batch,
            height, width, channels), to logits or probabilities of shape
            (batch, classes), or (batch, 1) for two classes.
        batches: Iterable of images, labels and weights, as tensors, from
            `data.evaluation_batches`.
        classes: Integer, the number of classes that `predict` knows.
        indices: Integer array, the class of `predict` for each label. Defaults
            to the label itself.
        activation: The last activation of `predict`: `"softmax"` or `"sigmoid"`
            if it returns probabilities, `"linear"` if it returns logits. By
            default, an image's outputs are treated as probabilities if they are
            in [0, 1] and, unless images have several labels, add up to 1.

    Returns:
        `Scores`, by the classes of `predict`.

    Raises:
        ValueError: If there are no images, if an image's outputs are not
            finite, or if the meaning of a single output is unknown.
    """
    accumulator = ScoreAccumulator(classes)
    indices = np.arange(classes) if indices is None else indices
    for number, (images, labels, weights) in enumerate(batches, 1):
        progress.note("evaluating, batch %d", number)
        several = labels.shape.rank == 2
        logits = _as_logits(predict(images.numpy()), activation, several)
        real = weights.numpy() > 0
        wrong = np.count_nonzero(~np.isfinite(logits[real]).all(-1))
        if wrong:
            raise ValueError(
                f"The model's outputs are NaN or infinite for {wrong} of "
                f"{np.count_nonzero(real)} images of a batch. Its weights may "
                "be damaged. Use an earlier checkpoint, or train the model "
                "again."
            )
        if several:
            targets = np.zeros(logits.shape)
            targets[:, indices] = labels.numpy()
            results = (*judge(targets, logits), targets, logits)
        else:
            results = judge(indices[labels.numpy()], logits)
        accumulator.add(weights.numpy(), *map(np.asarray, results))
    return accumulator.scores()


def _as_logits(outputs, activation, several=False):
    """Returns float64 logits of all classes, or the log of probabilities."""
    outputs = np.asarray(outputs, np.float64)
    if several:
        if activation == "linear" or outputs.min() < 0 or outputs.max() > 1:
            return outputs
        known = outputs.clip(1e-7, 1 - 1e-7)
        return np.log(known) - np.log1p(-known)
    if outputs.shape[-1] == 1:
        outputs, activation = probabilities(outputs, activation), "softmax"
    given = are_probabilities(outputs, activation)
    logarithms = np.log(np.where(given[:, None], outputs, 1).clip(1e-30))
    return np.where(given[:, None], logarithms, outputs)
