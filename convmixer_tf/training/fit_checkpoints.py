"""Checkpoints for training with `model.fit`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from convmixer_tf.files import PathLike
from convmixer_tf.training.checkpoint import CheckpointStore
from convmixer_tf.training.checkpoint import checkpoint_name
from convmixer_tf.training.optimizer import raw
from convmixer_tf.validation import check_positive_integer


class FitCheckpoints(keras.callbacks.Callback):
    """Resumes an interrupted `model.fit` with the same batches.

    Weights, optimizer and the states of random generators are saved to a
    `CheckpointStore` after every `save_every` batches and after each epoch. An
    interrupted run that is started again ends with the same weights as an
    uninterrupted one. On one CPU they are identical to the bit. The state of
    other callbacks, such as `ReduceLROnPlateau`, is not restored; use a
    learning rate schedule of the optimizer instead.

    Args:
        model: A compiled `keras.Model`. If `directory` has a checkpoint, it is
            restored.
        directory: Path of the folder of the checkpoints.
        save_every: Integer, batches between two checkpoints.
        keep: Integer, the number of latest checkpoints to keep.

    Raises:
        OSError: If all checkpoints are damaged.
        ValueError: If the model is not compiled, `save_every` is not a
            positive integer, or a checkpoint is for another model.

    Example:

    ```python
    checkpoints = FitCheckpoints(model, "runs/mine/checkpoints")
    for epoch, skip_steps in checkpoints.epochs(30):
        batches = train_batches(
            *(dataset, augmentation, 224, 64),
            seed=0,
            epoch=epoch,
            skip_steps=skip_steps,
        )
        model.fit(
            batches,
            initial_epoch=epoch,
            epochs=epoch + 1,
            callbacks=[checkpoints],
        )
    ```
    """

    def __init__(
        self,
        model: keras.Model,
        directory: PathLike,
        *,
        save_every: int = 500,
        keep: int = 3,
    ) -> None:
        super().__init__()
        check_positive_integer("save_every", save_every)
        optimizer = getattr(model, "optimizer", None)
        if optimizer is None:
            raise ValueError(
                "Argument `model` must be compiled: call `model.compile` first."
            )
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        self.save_every = save_every
        self._store = CheckpointStore(directory, keep)
        self._state = tf.train.Checkpoint(
            model=[raw(x) for x in model.variables],
            optimizer=[raw(x) for x in optimizer.variables],
        )
        info = self._store.restore(self._state) or {}
        self._epoch, self._step, self._total = (
            info.get(name, 0) for name in ("epoch", "step", "total")
        )
        if self._total:
            logging.info("Resuming from batch %d.", self._total)

    def epochs(self, count: int) -> Iterator[tuple[int, int]]:
        """Yields the remaining epochs.

        Args:
            count: Integer, the number of epochs of the whole run.

        Yields:
            The number of an epoch, from 0, and the number of its batches that
            were trained on before the interruption.
        """
        while self._epoch < count:
            epoch = self._epoch
            yield epoch, self._step
            if self._epoch == epoch:
                raise RuntimeError(
                    "No epoch was trained. Pass this object to `model.fit` in "
                    "its argument `callbacks`."
                )

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        # Before a batch, because after the last one the epoch ends.
        if self._total and self._total % self.save_every == 0:
            self._save(epoch_ended=False)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._step += 1
        self._total += 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._epoch, self._step = self._epoch + 1, 0
        self._save(epoch_ended=True)

    def _save(self, epoch_ended):
        info = {
            "epoch": self._epoch,
            "step": self._step,
            "total": self._total,
        }
        name = checkpoint_name(self._total, epoch_ended)
        self._store.save(self._state, name, info)
