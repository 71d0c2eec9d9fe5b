"""The training loop."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import keras
import tensorflow as tf
from absl import logging

from convmixer_tf.files import PathLike
from convmixer_tf.stopping import stop_signals
from convmixer_tf.training.checkpoint import CheckpointStore
from convmixer_tf.training.checkpoint import checkpoint_name
from convmixer_tf.training.evaluation import Evaluator
from convmixer_tf.training.evaluation import main_metric
from convmixer_tf.training.inputs import distribute
from convmixer_tf.training.run_log import RunLog
from convmixer_tf.training.run_log import check_run
from convmixer_tf.training.run_log import open_run
from convmixer_tf.training.step import Engine
from convmixer_tf.training.strategy import check_backend
from convmixer_tf.training.strategy import is_chief
from convmixer_tf.training.strategy import make_strategy
from convmixer_tf.training.strategy import on_replicas
from convmixer_tf.training.strategy import resolve_jit_compile
from convmixer_tf.training.strategy import resolve_precision

if TYPE_CHECKING:
    from convmixer_tf.training.config import TrainConfig

# Errors of TensorFlow in a worker when another worker is lost.
LOSSES = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


def train(
    config: TrainConfig,
    build_model: Callable[[], keras.Model],
    train_batches: Callable,
    eval_batches: Callable,
    directory: PathLike,
    strategy: str | tf.distribute.Strategy = "auto",
    notes: dict | None = None,
    *,
    build_teacher: Callable[[], keras.Model] | None = None,
) -> tuple[keras.Model, dict]:
    """Trains a model or resumes its training.

    Every checkpoint saves the complete state in `directory`. To resume a run
    that was stopped for any reason, call this function again with the same
    arguments. The result is the same as without the interruption.

    Args:
        config: A `TrainConfig`.
        build_model: Function without arguments that builds a `keras.Model` that
            returns logits. It is called in the scope of the strategy and with
            the precision of the run.
        train_batches: Function (epoch, first_batch, context) that returns a
            `tf.data.Dataset` of images and labels (integers, or target
            distributions): this worker's part of the epoch's batches from
            `first_batch` on, without a smaller batch at the end. Over all
            workers, a batch has `batch_size / accumulation_steps` images.
            `context` is a `tf.distribute.InputContext` with the index of this
            worker and the number of replicas. The result must depend only on
            these arguments.
        eval_batches: Function of such a context, as for `Evaluator`.
        directory: Path of the run folder, or its URL in an object store, such
            as `gs://bucket/run`. A TPU of several machines needs an object
            store. See `CheckpointStore` for its guarantees.
        strategy: Argument of `make_strategy`, or a `tf.distribute.Strategy`.
        notes: Dictionary of JSON values with all other settings that the result
            depends on. It is saved with the config and must be the same when a
            run is resumed.
        build_teacher: Function without arguments that builds the teacher for
            distillation, a `keras.Model` that returns logits, or `None`. It is
            called like `build_model`. Checkpoints do not contain the teacher.

    Returns:
        The model, with the trained weights, or their running mean if
        `config.ema_decay` is set; and a dictionary, the content of
        `summary.json`.

    Raises:
        ValueError: If the settings contradict each other or the run in
            `directory`.
        FloatingPointError: If the loss or the gradient is not finite.
        OSError: If the last checkpoint can't be written.
        RuntimeError: If another worker is lost.
        SystemExit: After SIGTERM or SIGINT, when a checkpoint is written. All
            workers stop, whichever of them got the signal.
    """
    check_backend()
    if isinstance(strategy, str):
        strategy = make_strategy(strategy)
    if build_teacher and config.loss != "softmax":
        raise ValueError(
            f'A teacher needs loss="softmax". Received: loss={config.loss!r}'
        )
    run = Run(config, build_model, directory, strategy, notes, build_teacher)
    with run, stop_signals() as stop:
        for epoch in range(len(run.history), config.epochs):
            for batches in run.batches(train_batches, epoch):
                run.update(batches)
                if run.is_to_stop(stop):
                    run.save()
                    logging.info(
                        "Saved step %d. Run the same command to resume.",
                        run.step,
                    )
                    raise SystemExit(128 + (stop or [signal.SIGTERM])[0])
                if run.save_is_due():
                    run.try_to_save()
            run.try_to_save()
            run.finish_epoch(eval_batches)
            run.try_to_save()
        return run.model, run.finish()


class Run:
    """The state of a run in progress.

    The arguments are the same as for `train`.
    """

    def __init__(
        self, config, build_model, directory, strategy, notes, build_teacher
    ):
        check_replicas(config, strategy)
        self.config = config
        self.strategy = strategy
        self.directory = os.fspath(directory)
        writes = is_chief(strategy)
        notes = {
            **(notes or {}),
            "replicas": strategy.num_replicas_in_sync,
            "computes_in": resolve_precision(config.precision),
            "jit_compile": resolve_jit_compile(
                config.jit_compile, strategy, config.sync_batch_norm
            ),
        }
        if writes:
            check_run(self.directory, config, notes)
        with strategy.scope():
            keras.utils.set_random_seed(config.seed)
            with _precision(config):
                self.model = build_model()
                _check_logits(self.model)
                teacher = build_teacher and build_teacher()
            self.engine = Engine(config, self.model, strategy, teacher)
        if writes:
            open_run(self.directory, config, notes)
        self.evaluator = Evaluator(self.model, strategy, config.jit_compile)
        self.store = CheckpointStore(
            os.path.join(self.directory, "checkpoints"), config.keep, writes
        )
        self.history = []
        self.loss_sum, self.losses = 0.0, []
        self.step = 0
        self.saved = None
        self.restore()
        self.engine.spread_seeds()
        several = self.model.output_shape[-1] > 5
        self.log = RunLog(self.directory, config, self.step, writes, several)
        self.epoch_started = time.perf_counter()
        self.epoch_first_step = self.step

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.log.close()
        if _has_workers(self.strategy) and isinstance(error, LOSSES):
            raise RuntimeError(
                f"Another worker was lost after step {self.step}. Start all "
                "workers again with the same command. They resume from "
                f"{self.last_good()}."
            ) from error

    def batches(self, train_batches, epoch):
        """Iterates over the rest of an epoch.

        Args:
            train_batches: As for `train`.
            epoch: Integer, from 0.

        Yields:
            For each call of `update`, the iterator of distributed batches.
        """
        count = self.config.accumulation_steps
        begin = epoch * self.config.steps_per_epoch
        end = begin + self.config.steps_per_epoch
        done = self.step - begin
        if self.step == end:
            return  # Stopped between the last update and the evaluation.
        replicas = self.strategy.num_replicas_in_sync
        batches = iter(
            distribute(
                self.strategy,
                lambda context: train_batches(epoch, done * count, context),
                self.config.batch_size // count // replicas,
            )
        )
        while self.step < end:
            yield batches

    def update(self, batches):
        """Updates the weights until something else is due."""
        config = self.config
        places = (config.steps_per_epoch, config.save_every, config.log_every)
        left = [place - self.step % place for place in places]
        count = min(config.steps_per_call, *left)
        try:
            results = self.engine.update(batches, count)
        except tf.errors.OutOfRangeError as error:
            epoch, done = divmod(self.step, config.steps_per_epoch)
            raise ValueError(
                f"The data of epoch {epoch} ended before step {done + count} "
                f"of {config.steps_per_epoch}. Decrease `steps_per_epoch`, or "
                "repeat the data."
            ) from error
        self.step += count
        self.losses.append(results["loss"])
        if self.log.add_step(results):
            self.check_finite()

    def finish_epoch(self, eval_batches):
        """Evaluates the model, with the running mean of the weights if set."""
        self.check_finite()
        trained = time.perf_counter()
        steps = self.step - self.epoch_first_step
        scores = self.evaluate(eval_batches)
        self._sum_losses()
        rate = self.engine.schedule(tf.constant(self.step - 1))
        self.history.append(
            {
                "epoch": self.step // self.config.steps_per_epoch,
                "step": self.step,
                "learning_rate": float(rate),
                "train_loss": self.loss_sum / self.config.steps_per_epoch,
                "loss": scores.loss,
                "top1": scores.top1,
                "top5": scores.top5,
                **self._further_figures(scores),
                # Unknown if the run was stopped between training and
                # evaluation.
                "images_per_second": steps
                * self.config.batch_size
                / (trained - self.epoch_started)
                or None,
                "seconds": time.perf_counter() - self.epoch_started,
            }
        )
        self.loss_sum = 0.0
        self.log.add_epoch(self.history)
        self.epoch_started = time.perf_counter()
        self.epoch_first_step = self.step

    def _further_figures(self, scores):
        """Returns the metrics for multi-label data or class weights."""
        if scores.mean_average_precision is not None:
            return {"mean_average_precision": scores.mean_average_precision}
        if self.config.class_weight:
            return {"balanced_accuracy": scores.balanced_accuracy}
        return {}

    def evaluate(self, eval_batches):
        """Evaluates the model.

        Args:
            eval_batches: As for `train`.

        Returns:
            `Scores`.
        """
        self.engine.merge_batch_norms()
        with self.averaged():
            return self.evaluator(eval_batches)

    @contextlib.contextmanager
    def averaged(self):
        """Uses the running mean of the weights, if any, in the model."""
        average = self.engine.average
        if average:
            average.swap()
        try:
            yield
        finally:
            if average:
                average.swap()

    def restore(self):
        """Restores the latest complete checkpoint, if there is any."""
        info = self.store.restore(self.engine.state())
        if info:
            self.history = info["history"]
            self.loss_sum = info["loss_sum"]
            self.step = int(self.engine.steps.numpy())
            self.saved = self.name()
            total = self.config.total_steps
            logging.info("Resuming from step %d of %d.", self.step, total)
        _check_agreement(self.strategy, self.step)

    def is_to_stop(self, signals):
        """Returns whether to save and stop.

        All workers must stop at the same update to save. They communicate when
        they wait for the loss.

        Args:
            signals: List of the signals that this worker has received.
        """
        if not _has_workers(self.strategy):
            return bool(signals)
        if self.step % self.config.log_every:
            return False
        return _sum_over_replicas(self.strategy, len(signals)) > 0

    def save_is_due(self):
        """Returns whether to save now. An epoch's end always saves."""
        return (
            self.step % self.config.save_every == 0
            and self.step % self.config.steps_per_epoch != 0
        )

    def save(self):
        """Saves everything.

        Raises:
            OSError: If the checkpoint can't be written.
            FloatingPointError: If the state is not finite.
        """
        self.check_finite()
        self.engine.merge_batch_norms()
        self._sum_losses()
        info = {"history": self.history, "loss_sum": self.loss_sum}
        best = self.best()
        self.store.save(
            self.engine.state(),
            self.name(),
            info,
            best and checkpoint_name(best["step"], True),
        )
        self.saved = self.name()

    def name(self):
        """Returns the name of a checkpoint of the current state."""
        evaluated = any(row["step"] == self.step for row in self.history)
        return checkpoint_name(self.step, evaluated)

    def try_to_save(self):
        """Saves everything, or logs the failure and continues."""
        try:
            self.save()
        except OSError as error:
            logging.error("%s The run continues.", error)

    def best(self):
        """Returns the row of the best epoch, or `None` before the first."""
        return max(
            self.history, key=lambda row: row[main_metric(row)], default=None
        )

    def check_finite(self):
        """Raises `FloatingPointError` if the state is not finite."""
        bad_step = int(self.engine.first_bad_step.numpy())
        if bad_step >= 0:
            raise FloatingPointError(
                f"The loss or the gradient of step {bad_step} is not finite. "
                f"The last good state is {self.last_good()}. Decrease the "
                "learning rate, clip the gradient or train in float32."
            )

    def last_good(self):
        """Describes the latest checkpoint, or that there is none."""
        names = self.store.names()
        return self.store.path(names[-1]) if names else "the beginning"

    def finish(self):
        """Ends the run.

        Returns:
            Dictionary, the content of `summary.json`.
        """
        if self.saved != self.name():
            self.save()
        if self.engine.average:
            self.engine.average.swap()
        speeds = [row["images_per_second"] for row in self.history]
        speeds = [speed for speed in speeds if speed]
        summary = {
            "parameters": self.model.count_params(),
            "replicas": self.strategy.num_replicas_in_sync,
            "precision": resolve_precision(self.config.precision),
            "images_per_second": statistics.median(speeds) if speeds else None,
            "seconds": sum(row["seconds"] for row in self.history),
            "last": self.history[-1],
            "best": self.best(),
        }
        self.log.close(summary)
        return summary

    def _sum_losses(self):
        losses = [loss for part in self.losses for loss in part.numpy()]
        self.loss_sum += sum(map(float, losses))
        self.losses = []


def check_replicas(config, strategy):
    """Raises `ValueError` if the batch can't be split over the replicas.

    Args:
        config: A `TrainConfig`.
        strategy: A `tf.distribute.Strategy`.
    """
    replicas = strategy.num_replicas_in_sync
    if config.batch_size % (replicas * config.accumulation_steps):
        raise ValueError(
            f"Argument `batch_size` must be a multiple of {replicas} replicas "
            f"x {config.accumulation_steps} accumulated batches. "
            f"Received: batch_size={config.batch_size}"
        )
    if config.jit_compile and config.sync_batch_norm and replicas > 1:
        raise ValueError(
            "XLA cannot compile batch statistics synchronized over replicas. "
            "Set jit_compile=False or sync_batch_norm=False. Received: "
            f"jit_compile=True, with {replicas} replicas"
        )


@contextlib.contextmanager
def _precision(config):
    """Makes models be built in the precision of a run."""
    old = keras.config.dtype_policy()
    keras.config.set_dtype_policy(resolve_precision(config.precision))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(old)


def _check_logits(model):
    activation = getattr(model.layers[-1], "activation", None)
    if activation not in (None, keras.activations.linear):
        raise ValueError(
            "The model must return logits. Build it with "
            "classifier_activation=None. Received: a last layer with "
            f"activation={activation.__name__!r}"
        )


def _check_agreement(strategy, step):
    """Raises an error unless all workers see the same checkpoints."""
    total = _sum_over_replicas(strategy, step)
    if total != step * strategy.num_replicas_in_sync:
        raise ValueError(
            f"This worker found the checkpoint of step {step}, but another "
            "worker found a different one. All workers need the same folder."
        )


def _sum_over_replicas(strategy, value):
    """Sums an integer of each worker, once per replica."""

    def add():
        context = tf.distribute.get_replica_context()
        return context.all_reduce(
            tf.distribute.ReduceOp.SUM, tf.constant(value, tf.int32)
        )

    total = on_replicas(strategy, add)()
    return int(strategy.experimental_local_results(total)[0])


def _has_workers(strategy):
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
