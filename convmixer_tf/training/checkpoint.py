"""Checkpoints that survive crashes, full disks and bad sectors."""

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

# The file of a checkpoint that is written last and removed first.
_RECORD = "info.json"


class CheckpointStore:
    """A folder of checkpoints. Each checkpoint is a subfolder.

    A checkpoint is valid once its record exists. The record has the hashes of
    the checkpoint's files and is written last, after the files are flushed to
    disk. A valid checkpoint is therefore complete. The hashes detect later
    damage before anything is restored. In an object store, an object also
    exists completely or not at all; when it is safe from a crash depends on the
    store.

    Args:
        directory: Path of the folder, or its URL in an object store, such as
            `gs://bucket/folder`. It need not exist.
        keep: Integer, the number of latest checkpoints to keep.
        writes: Boolean, whether this process writes. With several workers, one
            of them writes and the others read from a shared file system.
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
        """Returns the path for a checkpoint name."""
        return os.path.join(self.directory, name)

    def save(self, checkpoint, name, info, best=None):
        """Writes a checkpoint, then removes old ones.

        Args:
            checkpoint: A `tf.train.Checkpoint`.
            name: Name from `checkpoint_name`. An existing checkpoint of that
                name has the same state and is kept.
            info: Information to store with it, as JSON values.
            best: Name of a checkpoint to keep, or `None`.

        Raises:
            OSError: If it can't be written, for example because the disk is
                full. All earlier checkpoints are kept.
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
                f"Cannot write the checkpoint {name} to {self.directory}. "
                f"Earlier checkpoints are unchanged: {earlier}. {error}"
            ) from error
        self._prune(best)

    def restore(self, checkpoint):
        """Restores the latest complete checkpoint.

        Args:
            checkpoint: A `tf.train.Checkpoint`. Its values are replaced.

        Returns:
            The `info` of the checkpoint, or `None` if there is none.

        Raises:
            OSError: If all checkpoints are damaged.
            ValueError: If the checkpoint is for another model.
        """
        damaged = []
        for name in reversed(self.names()):
            damage = self._damage(name)
            if not damage:
                info = self.read(checkpoint, name)
                self._put_aside(damaged)
                return info
            logging.error(
                "The checkpoint %s is damaged (%s). Falling back to the "
                "previous one.",
                name,
                damage,
            )
            damaged.append(name)
        if not damaged:
            return None
        raise OSError(
            f"All checkpoints in {self.directory} are damaged. Remove the "
            "folder to restart the run."
        )

    def read(self, checkpoint, name):
        """Restores one checkpoint, which must be complete.

        Args:
            checkpoint: A `tf.train.Checkpoint`. It may be a part of what was
                saved.
            name: One of `names()`.

        Returns:
            The `info` of the checkpoint.

        Raises:
            ValueError: If a value was not saved or has another shape.
        """
        path = self.path(name)
        try:
            status = checkpoint.read(os.path.join(path, "state"))
            status.assert_existing_objects_matched().expect_partial()
        except (AssertionError, ValueError) as error:
            raise ValueError(
                f"The checkpoint {path} is for another model or other "
                f"settings. {error}"
            ) from error
        return _read_record(path)["info"]

    def _damage(self, name):
        """Describes a checkpoint's damage, or returns `None`."""
        path = self.path(name)
        try:
            for file, digest in _read_record(path)["sha256"].items():
                if _digest(os.path.join(path, file)) != digest:
                    return f"{file} has changed since it was written"
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
            # File by file, because an object store has no folders to rename.
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
        """Removes the incomplete checkpoint of a killed write or removal.

        If several have no record, there was another reason, and they are kept.
        """
        whole = self.names()
        for start in ("step_", "tmp_"):  # Older versions used "tmp_".
            names = [x for x in self._entries() if x.startswith(start)]
            half = [name for name in names if name not in whole]
            if len(half) == 1:
                _remove(self.path(half[0]))

    def _entries(self):
        if not gfile.isdir(self.directory):
            return []
        return [name.rstrip("/") for name in gfile.listdir(self.directory)]


def checkpoint_name(step, evaluated):
    """Names a checkpoint so that names sort in the order of writing.

    Args:
        step: Integer, the number of updates so far.
        evaluated: Boolean, whether the epoch that ends at this step was
            evaluated.

    Returns:
        String. The end of an epoch has two names, before and after its
        evaluation.
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
    # TensorFlow's `ram://` also finds files in folders with longer names.
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
