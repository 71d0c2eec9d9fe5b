"""Checkpoints that a crash, a full disk or a bad sector can't take away."""

import hashlib
import json
import os
import pathlib
import re
import shutil

import tensorflow as tf
from absl import logging


class CheckpointStore:
    """A folder of checkpoints, each of which is a folder of its own.

    A checkpoint is written beside the others under another name, with the
    hashes of its files, flushed to the disk and then renamed. So whatever
    bears a checkpoint's name is complete; and if it is damaged later, the
    hashes tell before anything is restored.

    Args:
        directory: Path of the folder. It may not exist yet.
        keep: Integer, how many of the last checkpoints to keep.
        writes: Boolean, whether this process writes. With several workers,
            one does; the others read what it wrote, on a file system that
            they share.
    """

    def __init__(self, directory, keep=3, writes=True):
        self.directory = pathlib.Path(directory)
        self.keep = keep
        self.writes = writes
        if writes:
            self.directory.mkdir(parents=True, exist_ok=True)
            for leftover in self.directory.glob("tmp_*"):
                shutil.rmtree(leftover)

    def steps(self):
        """Lists the steps of the checkpoints, oldest first."""
        names = (path.name for path in self.directory.glob("step_*"))
        matches = (re.fullmatch(r"step_(\d+)", name) for name in names)
        return sorted(int(match[1]) for match in matches if match)

    def path(self, step):
        """Returns where the checkpoint of a step is, or would be."""
        return self.directory / f"step_{step:010d}"

    def save(self, checkpoint, step, info, best_step=None):
        """Writes a checkpoint, and then removes those no longer wanted.

        Args:
            checkpoint: A `tf.train.Checkpoint`.
            step: Integer, updates made so far.
            info: What to keep with it, as JSON can hold it.
            best_step: Integer, a step not to remove, or `None`.

        Raises:
            OSError: If it can't be written; the disk may be full. All earlier
                checkpoints are still there.
        """
        if not self.writes:
            return
        temporary = self.directory / f"tmp_{os.getpid()}"
        try:
            temporary.mkdir()
            _write(checkpoint, temporary, info)
            if self.path(step).exists():
                shutil.rmtree(self.path(step))
            temporary.rename(self.path(step))
            _flush(self.directory)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise OSError(
                f"Can't write the checkpoint of step {step} to "
                f"{self.directory}; those of steps {self.steps()} are "
                f"untouched. {error}"
            ) from error
        self._prune(best_step)

    def restore(self, checkpoint):
        """Reads the last checkpoint that is whole.

        Args:
            checkpoint: A `tf.train.Checkpoint`, the values of which to
                replace.

        Returns:
            The `info` it was saved with, or `None` if there is no checkpoint.

        Raises:
            OSError: If there are checkpoints, but none is whole.
            ValueError: If the checkpoint is of something else.
        """
        damaged = []
        for step in reversed(self.steps()):
            damage = self._damage(step)
            if not damage:
                info = self.read(checkpoint, step)
                self._put_aside(damaged)
                return info
            logging.error(
                "The checkpoint of step %d is damaged (%s). Falling back to "
                "the one before it.",
                step,
                damage,
            )
            damaged.append(step)
        if not damaged:
            return None
        raise OSError(
            f"All checkpoints in {self.directory} are damaged. Remove the "
            "folder to start from the beginning."
        )

    def read(self, checkpoint, step):
        """Reads the checkpoint of one step, which must be whole.

        Args:
            checkpoint: A `tf.train.Checkpoint`. It may lack some of what was
                saved.
            step: Integer, one of `steps()`.

        Returns:
            The `info` it was saved with.

        Raises:
            ValueError: If something was not saved, or has another shape.
        """
        path = self.path(step)
        try:
            status = checkpoint.read(str(path / "state"))
            status.assert_existing_objects_matched().expect_partial()
        except (AssertionError, ValueError) as error:
            raise ValueError(
                f"The checkpoint {path} is of another model or of other "
                f"settings than these. {error}"
            ) from error
        return json.loads((path / "info.json").read_text())["info"]

    def _damage(self, step):
        """Says what is wrong with a checkpoint, or nothing."""
        path = self.path(step)
        try:
            record = json.loads((path / "info.json").read_text())
            for name, digest in record["sha256"].items():
                if _digest(path / name) != digest:
                    return f"{name} is not what was written"
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def _put_aside(self, steps):
        for step in steps if self.writes else ():
            path = self.path(step)
            path.rename(path.with_name(f"damaged_{path.name}"))

    def _prune(self, best_step):
        kept = {*self.steps()[-self.keep :], best_step}
        for step in self.steps():
            if step not in kept:
                doomed = self.path(step).with_name(f"tmp_{step}")
                self.path(step).rename(doomed)
                shutil.rmtree(doomed)


def _write(checkpoint, directory, info):
    checkpoint.write(str(directory / "state"))
    digests = {
        path.name: _digest(path) for path in sorted(directory.glob("state*"))
    }
    record = {"info": info, "sha256": digests}
    (directory / "info.json").write_text(json.dumps(record, indent=1))
    for path in [*directory.iterdir(), directory]:
        _flush(path)


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
