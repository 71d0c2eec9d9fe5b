"""Checkpoints that a crash, a full disk or a bad sector can't take away."""

import hashlib
import json
import os
import pathlib
import shutil

import tensorflow as tf
from absl import logging

from convmixer_tf.files import PathLike


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

    def __init__(
        self, directory: PathLike, keep: int = 3, writes: bool = True
    ) -> None:
        self.directory = pathlib.Path(directory)
        self.keep = keep
        self.writes = writes
        if writes:
            self.directory.mkdir(parents=True, exist_ok=True)
            for leftover in self.directory.glob("tmp_*"):
                shutil.rmtree(leftover)

    def names(self):
        """Lists the checkpoints, oldest first."""
        return sorted(path.name for path in self.directory.glob("step_*"))

    def path(self, name):
        """Returns where the checkpoint of a name is, or would be."""
        return self.directory / name

    def save(self, checkpoint, name, info, best=None):
        """Writes a checkpoint, and then removes those no longer wanted.

        Args:
            checkpoint: A `tf.train.Checkpoint`.
            name: What `checkpoint_name` returns. If there is one of that
                name, it is of the same state and stays.
            info: What to keep with it, as JSON can hold it.
            best: The name of one not to remove, or `None`.

        Raises:
            OSError: If it can't be written; the disk may be full. All earlier
                checkpoints are still there.
        """
        if not self.writes or self.path(name).exists():
            return
        temporary = self.directory / f"tmp_{os.getpid()}"
        try:
            temporary.mkdir()
            _write(checkpoint, temporary, info)
            temporary.rename(self.path(name))
            _flush(self.directory)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            earlier = ", ".join(self.names()) or "none"
            raise OSError(
                f"Can't write the checkpoint {name} to {self.directory}. The "
                f"earlier ones are untouched: {earlier}. {error}"
            ) from error
        self._prune(best)

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
        for name in reversed(self.names()):
            damage = self._damage(name)
            if not damage:
                info = self.read(checkpoint, name)
                self._put_aside(damaged)
                return info
            logging.error(
                "The checkpoint %s is damaged (%s). Falling back to the one "
                "before it.",
                name,
                damage,
            )
            damaged.append(name)
        if not damaged:
            return None
        raise OSError(
            f"All checkpoints in {self.directory} are damaged. Remove the "
            "folder to start from the beginning."
        )

    def read(self, checkpoint, name):
        """Reads one checkpoint, which must be whole.

        Args:
            checkpoint: A `tf.train.Checkpoint`. It may lack some of what was
                saved.
            name: One of `names()`.

        Returns:
            The `info` it was saved with.

        Raises:
            ValueError: If something was not saved, or has another shape.
        """
        path = self.path(name)
        try:
            status = checkpoint.read(str(path / "state"))
            status.assert_existing_objects_matched().expect_partial()
        except (AssertionError, ValueError) as error:
            raise ValueError(
                f"The checkpoint {path} is of another model or of other "
                f"settings than these. {error}"
            ) from error
        return json.loads((path / "info.json").read_text())["info"]

    def _damage(self, name):
        """Says what is wrong with a checkpoint, or nothing."""
        path = self.path(name)
        try:
            record = json.loads((path / "info.json").read_text())
            for file, digest in record["sha256"].items():
                if _digest(path / file) != digest:
                    return f"{file} is not what was written"
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def _put_aside(self, names):
        for name in names if self.writes else ():
            self.path(name).rename(self.path(f"damaged_{name}"))

    def _prune(self, best):
        names = self.names()
        for name in set(names) - {*names[-self.keep :], best}:
            doomed = self.path(f"tmp_{name}")
            self.path(name).rename(doomed)
            shutil.rmtree(doomed)


def checkpoint_name(step, evaluated):
    """Names a checkpoint, so that names sort as they were written.

    Args:
        step: Integer, updates made so far.
        evaluated: Boolean, whether the epoch that ends there was evaluated.

    Returns:
        String. An epoch's end has two, before its evaluation and after.
    """
    return f"step_{step:010d}" + ("_evaluated" if evaluated else "")


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
