"""Writing files and folders so that none is ever half there."""

import contextlib
import os
import pathlib
import shutil
import uuid


def check_destination(path, suffixes, overwrite=False):
    """Checks that a file can be written, before work is put into it.

    Args:
        path: Path of the file to write.
        suffixes: Tuple of suffixes, one of which `path` must have.
        overwrite: Whether an existing file may be replaced.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`.
        FileNotFoundError: If its directory doesn't exist.
        ValueError: If the suffix is another one.
    """
    path = os.fspath(path)
    directory = os.path.dirname(path) or os.curdir
    if not path.endswith(suffixes):
        raise ValueError(
            f"The file to write must end in {' or '.join(suffixes)}. "
            f"Received: `{path}`"
        )
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"There is no directory `{directory}`.")
    if os.path.exists(path) and not overwrite:
        raise FileExistsError(
            f"`{path}` exists. To replace it, pass `overwrite`."
        )


@contextlib.contextmanager
def replaced(path):
    """Lets a file appear only when it is complete.

    Args:
        path: Path of the file to write or to replace.

    Yields:
        Path of a new file in the same directory, with the same suffix. It is
        renamed to `path` on success and deleted on failure.
    """
    directory, name = os.path.split(os.fspath(path))
    unfinished = os.path.join(directory, f".{uuid.uuid4().hex}.{name}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(unfinished)


def size_of(path):
    """Adds up the bytes of a file, or of all files in a folder."""
    path = pathlib.Path(path)
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def check_folder_destination(path, mark, overwrite=False):
    """Checks that a folder can be written, before work is put into it.

    Args:
        path: Path of the folder to write.
        mark: Path, within the folder, of a file that tells that a folder is
            of the kind that may be replaced. Any other is left alone.
        overwrite: Whether an existing folder of that kind may be replaced.

    Raises:
        FileExistsError: If there is something that may not be replaced. An
            empty folder may.
        FileNotFoundError: If the directory it is to lie in doesn't exist.
    """
    path = os.path.abspath(path)
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"There is no directory `{directory}`.")
    if not os.path.lexists(path):
        return
    if os.path.isdir(path) and not os.listdir(path):
        return
    if not os.path.isfile(os.path.join(path, mark)):
        raise FileExistsError(
            f"`{path}` exists and is not replaced, as it has no `{mark}` in "
            "it. Remove it, or write elsewhere."
        )
    if not overwrite:
        raise FileExistsError(
            f"`{path}` exists. To replace it, pass `overwrite`."
        )


@contextlib.contextmanager
def replaced_folder(path):
    """Lets a folder appear only when it is complete.

    Args:
        path: Path of the folder to write or to replace.

    Yields:
        Path of a new, empty folder in the same directory. It is renamed to
        `path` on success and deleted on failure.
    """
    directory, name = os.path.split(os.path.abspath(path))
    unfinished = os.path.join(directory, f".{uuid.uuid4().hex}.{name}")
    former = f"{unfinished}.former"
    os.mkdir(unfinished)
    try:
        yield unfinished
        # No rename replaces a folder that is not empty.
        if os.path.lexists(path):
            os.rename(path, former)
        os.rename(unfinished, path)
    finally:
        if not os.path.lexists(path) and os.path.lexists(former):
            os.rename(former, path)
        for rest in (unfinished, former):
            shutil.rmtree(rest, ignore_errors=True)
