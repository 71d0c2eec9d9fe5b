"""Reads text files and writes files atomically."""

import codecs
import contextlib
import json
import os
import pathlib
import re
import shutil
import tempfile
import unicodedata
import uuid

PathLike = str | os.PathLike[str]

_OTHER_ENCODINGS = (
    codecs.BOM_UTF32_LE,  # Before UTF-16, whose mark it begins with.
    codecs.BOM_UTF32_BE,
    codecs.BOM_UTF16_LE,
    codecs.BOM_UTF16_BE,
)


def is_remote(path):
    """Returns whether a path is in an object store, such as `gs://bucket/x`."""
    return "://" in os.fspath(path)


def open_binary(path):
    """Opens a local or remote file to read bytes."""
    if not is_remote(path):
        return open(path, "rb")
    import tensorflow as tf

    return tf.io.gfile.GFile(path, "rb")


def read_lines(path, unique=False):
    """Reads the lines of a text file, such as the names of classes.

    Args:
        path: Path of a UTF-8 file, with or without a byte order mark, with
            line ends of any kind. Spaces at the end of a line and blank lines
            at the end of the file are ignored.
        unique: Boolean, whether no two lines may be equal.

    Returns:
        Tuple of strings, at least one, none of them blank.

    Raises:
        OSError: If the file can't be read.
        ValueError: If it has another encoding, is empty, has a blank line
            before others, or if lines must be unique and are not.
    """
    with open_binary(path) as file:
        content = file.read()
    content = re.sub(rb"[ \t]+(?=[\r\n]|\Z)", b"", content)
    return parse_lines(content, os.fspath(path), unique)


def parse_lines(content, name, unique=False, paths=False):
    """Reads the lines of a text, like `read_lines`.

    Args:
        content: Bytes, the text.
        name: String, the file's name in error messages.
        unique: Boolean, whether no two lines may be equal.
        paths: Boolean, whether the lines are paths of files. If so, all blank
            lines are ignored, lines may have bytes that are not UTF-8, and
            spaces and quotes around the path of an existing file are removed.

    Returns:
        Tuple of strings, at least one, none of them blank.

    Raises:
        ValueError: As for `read_lines`.
    """
    if content.startswith(_OTHER_ENCODINGS) or b"\0" in content:
        raise ValueError(
            f"The file `{name}` must be UTF-8 text, but it is UTF-16, UTF-32 "
            "or not text. Save it again as UTF-8."
        )
    content = content.removeprefix(codecs.BOM_UTF8)
    lines = re.split(rb"\r\n|\r|\n", content)
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise ValueError(f"The file `{name}` is empty.")
    found = {}
    texts = []
    for number, line in enumerate(lines, 1):
        if paths and not line.strip():
            continue
        text = _decode_line(line, f"Line {number} of `{name}`", paths)
        if unique and text in found:
            raise ValueError(
                f"Line {number} of `{name}` repeats line {found[text]}, but "
                f"names must be unique. Received: {text!r}"
            )
        found.setdefault(text, number)
        texts.append(text)
    return tuple(texts)


def _decode_line(line, where, is_path):
    """Decodes a line. Errors name the line."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        if is_path and os.path.lexists(line):
            return os.fsdecode(line)
        raise ValueError(
            f"{where} is not encoded as UTF-8. Save the file again as UTF-8. "
            f"Received: {line!r:.80}"
        ) from error
    if not text.strip():
        raise ValueError(
            f"{where} is blank, but other lines follow. Remove the line, or "
            "fill in the missing text."
        )
    return _unquote(text) if is_path else text


def _unquote(text):
    """Removes spaces and quotes around a path if such a file exists."""
    stripped = text.strip()
    if len(stripped) > 2 and stripped[0] == stripped[-1] in "\"'":
        stripped = stripped[1:-1]
    if os.path.lexists(stripped) and not os.path.lexists(text):
        return stripped
    return text


def printable_name(path):
    r"""Converts the name of a file or folder to one line of Unicode text.

    Args:
        path: Path or string, which may hold bytes that are not UTF-8.

    Returns:
        String: `path` with such bytes, control characters and line ends
        escaped, such as `\xe9` or `\n`.
    """
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(
        x.encode("unicode_escape").decode()
        if unicodedata.category(x) in ("Cc", "Zl", "Zp")
        else x
        for x in text
    )


def check_destination(path, suffixes, overwrite=False):
    """Checks early that a file can be written.

    Args:
        path: Path of the file to write.
        suffixes: Tuple of suffixes, one of which `path` must have.
        overwrite: Whether an existing file may be replaced.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`, or if a
            folder of that name exists.
        FileNotFoundError: If its directory doesn't exist.
        OSError: If its directory can't be written to.
        ValueError: If the suffix is wrong.
    """
    path = os.fspath(path)
    if not path.endswith(suffixes):
        raise ValueError(
            f"The file to write must end in {' or '.join(suffixes)}. "
            f"Received: `{path}`"
        )
    check_directory(os.path.dirname(path) or os.curdir)
    if os.path.isdir(path):
        raise FileExistsError(
            f"`{path}` must be a file to write, but it is a folder."
        )
    if os.path.exists(path) and not overwrite:
        raise FileExistsError(
            f"`{path}` exists. To replace it, pass `--overwrite`, in Python "
            "`overwrite=True`."
        )


def check_directory(directory):
    """Checks that a directory exists and files can be written to it.

    Args:
        directory: Its path.

    Raises:
        FileNotFoundError: If it doesn't exist.
        OSError: If it can't be written to.
    """
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"The directory `{directory}` does not exist.")
    # Permissions don't suffice, as for superusers, /proc or network drives.
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OSError(
            f"Can't write to the directory `{directory}`: {error.strerror}."
        ) from error


@contextlib.contextmanager
def made_parents(path):
    """Creates the parent folders of a file or folder.

    Args:
        path: Path of the file or folder.

    Yields:
        Nothing. On failure, the folders that were created are removed if they
        are empty.
    """
    parent = pathlib.Path(os.path.abspath(path)).parent
    new = [x for x in (parent, *parent.parents) if not os.path.lexists(x)]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


@contextlib.contextmanager
def replaced(path):
    """Writes a file that appears only when it is complete.

    Args:
        path: Path of the file to write or to replace.

    Yields:
        Path of a new file in the same directory, with the same suffix. It is
        renamed to `path` on success and deleted on failure. An `OSError` in
        between names `path`. For an object store, it is a local file that is
        copied there.
    """
    directory, name = os.path.split(os.fspath(path))
    if is_remote(path):
        import tensorflow as tf

        with tempfile.TemporaryDirectory() as local:
            unfinished = os.path.join(local, name)
            yield unfinished
            tf.io.gfile.copy(unfinished, os.fspath(path), overwrite=True)
        return
    unfinished = os.path.join(directory, f".{uuid.uuid4().hex}.{name}")
    try:
        with _named(path, unfinished):
            yield unfinished
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(unfinished)


@contextlib.contextmanager
def _named(path, unfinished):
    """Makes system errors name the final file or folder."""
    try:
        yield
    except OSError as error:
        name = str(error.filename or unfinished)
        if error.errno and name.startswith(unfinished):
            error.filename = os.fspath(path)
        raise


def write_text(path, text):
    """Writes a text file atomically."""
    with replaced(path) as unfinished:
        pathlib.Path(unfinished).write_text(text, encoding="utf-8")


def dump_json(path, value):
    """Writes a value as JSON atomically."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def size_of(path):
    """Returns the size in bytes of a file, or of all files in a folder."""
    path = pathlib.Path(path)
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def check_folder_destination(path, mark, overwrite=False):
    """Checks early that a folder can be written.

    Args:
        path: Path of the folder to write.
        mark: Path of a file within the folder. Only an existing folder that has
            this file may be replaced.
        overwrite: Whether such an existing folder may be replaced.

    Raises:
        FileExistsError: If the path exists and may not be replaced. An empty
            folder may be replaced.
        FileNotFoundError: If its parent directory doesn't exist.
        OSError: If its parent directory can't be written to.
    """
    path = os.path.abspath(path)
    check_directory(os.path.dirname(path))
    if not os.path.lexists(path):
        return
    if os.path.isdir(path) and not os.listdir(path):
        return
    if not os.path.isfile(os.path.join(path, mark)):
        raise FileExistsError(
            f"`{path}` exists and has no `{mark}`, so it is not replaced. "
            "Remove it, or choose another path."
        )
    if not overwrite:
        raise FileExistsError(
            f"`{path}` exists. To replace it, pass `--overwrite`, in Python "
            "`overwrite=True`."
        )


@contextlib.contextmanager
def replaced_folder(path):
    """Writes a folder that appears only when it is complete.

    Args:
        path: Path of the folder to write or to replace.

    Yields:
        Path of a new, empty folder in the same directory. It is renamed to
        `path` on success and deleted on failure. An `OSError` in between names
        `path`.
    """
    directory, name = os.path.split(os.path.abspath(path))
    unfinished = os.path.join(directory, f".{uuid.uuid4().hex}.{name}")
    former = f"{unfinished}.former"
    os.mkdir(unfinished)
    try:
        with _named(path, unfinished):
            yield unfinished
        # A rename cannot replace a folder that is not empty.
        if os.path.lexists(path):
            os.rename(path, former)
        os.rename(unfinished, path)
    finally:
        if not os.path.lexists(path) and os.path.lexists(former):
            os.rename(former, path)
        for rest in (unfinished, former):
            shutil.rmtree(rest, ignore_errors=True)
