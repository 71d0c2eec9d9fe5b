"""The training loop."""

import collections
import dataclasses
import pathlib
import statistics
import time

import jax
import numpy as np
from absl import logging

from convmixer_tf.files import dump_json
from jax_cifar10.folder import read_checkpoint
from jax_cifar10.folder import save_checkpoint
from jax_cifar10.folder import write_log
from jax_cifar10.schedule import learning_rate
from jax_cifar10.scores import score

# Updates that may wait on the device; each holds its batch in memory there.
_IN_FLIGHT = 8
_EVAL_BATCH_SIZE = 1000  # images


@dataclasses.dataclass
class Progress:
    """Where a run is, but for its weights.

    Attributes:
        step: Integer, updates made.
        loss_sum: Float, of the updates of this epoch.
        history: List of a dictionary for each epoch, the rows of `log.csv`.
    """

    step: int = 0
    loss_sum: float = 0.0
    history: list = dataclasses.field(default_factory=list)


class Run:
    """A run in progress. It goes on from the checkpoint in its folder.

    Args:
        engine: An `Engine`.
        config: Namespace of the fields of a `TrainConfig`.
        eval_images: `Images` to evaluate on.
        folder: Path of the run's folder.
    """

    def __init__(self, engine, config, eval_images, folder):
        self.engine = engine
        self.config = config
        self.eval_images = eval_images
        self.folder = pathlib.Path(folder)
        self.total_steps = config.epochs * config.steps_per_epoch
        self.progress = Progress()
        self._checkpoint = self.folder / "checkpoint.npz"
        if self._checkpoint.exists():
            engine.state, info = read_checkpoint(self._checkpoint, engine.state)
            self.progress = Progress(**info)
            logging.info(
                "Goes on from step %d of %d.",
                self.progress.step,
                self.total_steps,
            )
        self._in_flight = collections.deque()
        self._restart_clocks()

    def train(self, batches, must_stop):
        """Trains up to the end, or until it must stop.

        Args:
            batches: Iterable of images and labels, from the update on that
                the run is at.
            must_stop: Function without arguments, asked after each update.

        Returns:
            Boolean, whether it came to its end. If not, it has saved.

        Raises:
            FloatingPointError: If the loss or the gradient is not finite.
        """
        for images, labels in batches:
            self._update(images, labels)
            if self.progress.step % self.config.steps_per_epoch == 0:
                self._finish_epoch()
                self.save()
            elif self.progress.step % self.config.save_every == 0:
                self.save()
            if must_stop() and self.progress.step < self.total_steps:
                self.save()
                return False
        return True

    def save(self):
        """Saves everything.

        Raises:
            FloatingPointError: If there is nothing worth saving.
        """
        self._read_losses()
        info = dataclasses.asdict(self.progress)
        save_checkpoint(self._checkpoint, self.engine.state, info)

    def summarize(self):
        """Sums up a finished run.

        Returns:
            Dictionary, the content of `summary.json`.
        """
        history = self.progress.history
        policy = self.engine.model.layers[-1].dtype_policy
        summary = {
            "parameters": self.engine.model.count_params(),
            "replicas": 1,
            "precision": policy.name,
            "images_per_second": statistics.median(
                row["images_per_second"] for row in history
            ),
            "seconds": sum(row["seconds"] for row in history),
            "last": history[-1],
            "best": max(history, key=lambda row: row["top1"]),
        }
        dump_json(self.folder / "summary.json", summary)
        return summary

    def _update(self, images, labels):
        rate = learning_rate(self.progress.step, self.config)
        loss = self.engine.step(images, labels, rate)
        self.progress.step += 1
        self._in_flight.append(loss)
        if len(self._in_flight) > _IN_FLIGHT:
            self._read_loss()
        if self.progress.step % self.config.log_every == 0:
            self._report()

    def _read_losses(self):
        while self._in_flight:
            self._read_loss()

    def _read_loss(self):
        loss = float(self._in_flight.popleft())
        if not np.isfinite(loss):
            step = self.progress.step - len(self._in_flight)
            raise FloatingPointError(
                f"The loss or the gradient of step {step} is not finite. The "
                f"last good state is in {self.folder}. Lower the learning "
                "rate, or train in float32."
            )
        self.progress.loss_sum += loss

    def _report(self):
        steps = self.progress.step - self._reported
        rate = steps * self.config.batch_size / (time.time() - self._since)
        left = self.total_steps - self.progress.step
        logging.info(
            "Step %d/%d: %.0f images/s, %.1f min left",
            self.progress.step,
            self.total_steps,
            rate,
            left * self.config.batch_size / rate / 60,
        )
        self._reported, self._since = self.progress.step, time.time()

    def _finish_epoch(self):
        """Evaluates, and adds a row to the log."""
        self._read_losses()
        progress, config = self.progress, self.config
        trained = time.time()
        steps = progress.step - self._epoch_first_step
        scores = self._evaluate()
        now = time.time()
        row = {
            "epoch": progress.step // config.steps_per_epoch,
            "step": progress.step,
            "learning_rate": learning_rate(progress.step - 1, config),
            "train_loss": progress.loss_sum / config.steps_per_epoch,
            **scores,
            "images_per_second": steps
            * config.batch_size
            / (trained - self._epoch_began),
            "seconds": now - self._epoch_began,
        }
        progress.loss_sum = 0.0
        progress.history.append(row)
        write_log(self.folder / "log.csv", progress.history)
        figures = ", ".join(f"{name} {row[name]:.4g}" for name in list(row)[1:])
        logging.info("Epoch %d: %s", row["epoch"], figures)
        self._restart_clocks()

    def _evaluate(self):
        pixels, labels = self.eval_images.pixels, self.eval_images.labels
        logits = [
            self.engine.logits(pixels[first : first + _EVAL_BATCH_SIZE])
            for first in range(0, len(labels), _EVAL_BATCH_SIZE)
        ]
        return score(labels, np.concatenate(jax.device_get(logits)))

    def _restart_clocks(self):
        self._epoch_began = self._since = time.time()
        self._epoch_first_step = self._reported = self.progress.step
