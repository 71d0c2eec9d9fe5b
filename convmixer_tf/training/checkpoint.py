"""Checkpoints that a crash, a full disk or a bad sector can't take away."""

import contextlib
import hashlib
import json
import os

import tensorflow as tf
from absl import logging
from tensorflow.io import gfile

from convmixer_tf.files import PathLike
from convmixer_tf.files import dump_json
from convmixer_tf.files import is_remote

# The last file of a checkpoint to be written, and the first to be removed.
_RECORD = "info.json"


class CheckpointStore:
    """A folder of checkpoints, each of which is a folder of its own.

    A checkpoint counts once its record is there, which has the hashes of its
    files. It is written last, when they are flushed to the disk. So what
    counts is complete; and if it is damaged later, the hashes tell before
    anything is restored. An object store promises the same, as an object is
    there whole or not at all; when it is safe from a crash is its own affair.

    Args:
        directory: Path of the folder, or where it is in an object store, such
            as `gs://bucket/folder`. It may not exist yet.
        keep: Integer, how many of the last checkpoints to keep.
        writes: Boolean, whether this process writes. With several workers,
            one does; the others read what it wrote, on a file system that
            they share.
    """

    def __init__(
        self, directory: PathLike, keep: int = 3, writes: bool = True
    ) -> None:
        self.directory = os.fspath(directory)
        self.keep = keep
        self.writes = writes
        if writes:
            gfile.makedirs(self.directory)
            self._remove_half()

    def names(self):
        """Lists the checkpoints, oldest first."""
        return sorted(
            name
            for name in self._entries()
            if name.startswith("step_")
            and gfile.exists(os.path.join(self.path(name), _RECORD))
        )

    def path(self, name):
        """Returns where the checkpoint of a name is, or would be."""
        return os.path.join(self.directory, name)

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
        if not self.writes or name in self.names():
            return
        try:
            gfile.makedirs(self.path(name))
            _write(checkpoint, self.path(name), info)
            _flush(self.directory)
        except (OSError, tf.errors.OpError) as error:
            with contextlib.suppress(tf.errors.OpError):
                _remove(self.path(name))
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
            status = checkpoint.read(os.path.join(path, "state"))
            status.assert_existing_objects_matched().expect_partial()
        except (AssertionError, ValueError) as error:
            raise ValueError(
                f"The checkpoint {path} is of another model or of other "
                f"settings than these. {error}"
            ) from error
        return _read_record(path)["info"]

    def _damage(self, name):
        """Says what is wrong with a checkpoint, or nothing."""
        path = self.path(name)
        try:
            for file, digest in _read_record(path)["sha256"].items():
                if _digest(os.path.join(path, file)) != digest:
                    return f"{file} is not what was written"
        except (
            *(OSError, ValueError, KeyError, TypeError, AttributeError),
            tf.errors.OpError,
        ) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def _put_aside(self, names):
        for name in names if self.writes else ():
            old, new = self.path(name), self.path(f"damaged_{name}")
            gfile.makedirs(new)
            # File by file: an object store has no folders to rename.
            for file in (_RECORD, *_state_files(old)):
                paths = (os.path.join(path, file) for path in (old, new))
                gfile.rename(*paths, overwrite=True)
            _remove(old)

    def _prune(self, best):
        names = self.names()
        for name in set(names) - {*names[-self.keep :], best}:
            gfile.remove(os.path.join(self.path(name), _RECORD))
            _remove(self.path(name))

    def _remove_half(self):
        """Removes what a killed write or removal left: no more than one.

        If more lack their record, something else took it. They stay.
        """
        whole = self.names()
        for start in ("step_", "tmp_"):  # The latter of older versions.
            names = [x for x in self._entries() if x.startswith(start)]
            half = [name for name in names if name not in whole]
            if len(half) == 1:
                _remove(self.path(half[0]))

    def _entries(self):
        if not gfile.isdir(self.directory):
            return []
        return [name.rstrip("/") for name in gfile.listdir(self.directory)]


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
    checkpoint.write(os.path.join(directory, "state"))
    files = [os.path.join(directory, x) for x in _state_files(directory)]
    digests = {os.path.basename(path): _digest(path) for path in files}
    for path in [*files, directory]:
        _flush(path)
    record = os.path.join(directory, _RECORD)
    dump_json(record, {"info": info, "sha256": digests})
    for path in (record, directory):
        _flush(path)


def _state_files(directory):
    names = gfile.listdir(directory)
    return sorted(name for name in names if name.startswith("state."))


def _remove(directory):
    # TensorFlow's `ram://` also looks for files of folders of longer names.
    with contextlib.suppress(tf.errors.NotFoundError):
        gfile.rmtree(directory)


def _read_record(directory):
    with gfile.GFile(os.path.join(directory, _RECORD)) as file:
        return json.loads(file.read())


def _digest(path):
    digest = hashlib.sha256()
    with gfile.GFile(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _flush(path):
    if is_remote(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
