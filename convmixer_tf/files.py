"""Reading text files, and writing files so that none is ever half there."""

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
    """Says whether a path is in an object store, such as `gs://bucket/x`."""
    return "://" in os.fspath(path)


def open_binary(path):
    """Opens a file to read bytes from, wherever it is."""
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
        name: String, what errors call it.
        unique: Boolean, whether no two lines may be equal.
        paths: Boolean, whether the lines are paths of files: then blank lines
            are ignored everywhere, a line that is not UTF-8 may name a file
            whose name is those bytes, and spaces and quotes around the path
            of a file that exists are removed.

    Returns:
        Tuple of strings, at least one, none of them blank.

    Raises:
        ValueError: As `read_lines`.
    """
    if content.startswith(_OTHER_ENCODINGS) or b"\0" in content:
        raise ValueError(
            f"The file `{name}` must be text encoded as UTF-8; it is UTF-16, "
            "UTF-32 or no text. Save it again as UTF-8."
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
                f"Line {number} of `{name}` repeats line {found[text]}, and "
                f"each name must be there once. Received: {text!r}"
            )
        found.setdefault(text, number)
        texts.append(text)
    return tuple(texts)


def _decode_line(line, where, is_path):
    """Decodes a line, and names it if that can't be done."""
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
            f"{where} is blank, and other lines follow. Remove the line, or "
            "write there what is missing."
        )
    return _unquote(text) if is_path else text


def _unquote(text):
    """Removes what stands around a path, if there is a file without it."""
    stripped = text.strip()
    if len(stripped) > 2 and stripped[0] == stripped[-1] in "\"'":
        stripped = stripped[1:-1]
    if os.path.lexists(stripped) and not os.path.lexists(text):
        return stripped
    return text


def printable_name(path):
    r"""Writes the name of a file or folder as one line of Unicode text.

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
    """Checks that a file can be written, before work is put into it.

    Args:
        path: Path of the file to write.
        suffixes: Tuple of suffixes, one of which `path` must have.
        overwrite: Whether an existing file may be replaced.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`, or if
            there is a folder in its place.
        FileNotFoundError: If its directory doesn't exist.
        OSError: If that can't be written to.
        ValueError: If the suffix is another one.
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
            f"`{path}` is a folder, and a file is to be written there."
        )
    if os.path.exists(path) and not overwrite:
        raise FileExistsError(
            f"`{path}` exists. To replace it, pass `--overwrite`, in Python "
            "`overwrite=True`."
        )


def check_directory(directory):
    """Checks that there is a directory that files can be written to.

    Args:
        directory: Its path.

    Raises:
        FileNotFoundError: If it doesn't exist.
        OSError: If it can't be written to.
    """
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"There is no directory `{directory}`.")
    # Permissions tell less: of a superuser, of /proc, of a network's drive.
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OSError(
            f"Can't write to the directory `{directory}`: {error.strerror}."
        ) from error


@contextlib.contextmanager
def made_parents(path):
    """Makes the folders that a file or folder is to lie in.

    Args:
        path: Its path.

    Yields:
        Nothing. On failure the folders that were made go again, if nothing is
        in them.
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
    """Lets a file appear only when it is complete.

    Args:
        path: Path of the file to write or to replace.

    Yields:
        Path of a new file in the same directory, with the same suffix. It is
        renamed to `path` on success and deleted on failure. An `OSError` on
        the way names `path`. For an object store, it is a file on this
        machine that is copied there.
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
    """Lets system errors name the file or folder that is to appear."""
    try:
        yield
    except OSError as error:
        name = str(error.filename or unfinished)
        if error.errno and name.startswith(unfinished):
            error.filename = os.fspath(path)
        raise


def write_text(path, text):
    """Writes a text file, whole or not at all."""
    with replaced(path) as unfinished:
        pathlib.Path(unfinished).write_text(text, encoding="utf-8")


def dump_json(path, value):
    """Writes a value as JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


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
        OSError: If that can't be written to.
    """
    path = os.path.abspath(path)
    check_directory(os.path.dirname(path))
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
            f"`{path}` exists. To replace it, pass `--overwrite`, in Python "
            "`overwrite=True`."
        )


@contextlib.contextmanager
def replaced_folder(path):
    """Lets a folder appear only when it is complete.

    Args:
        path: Path of the folder to write or to replace.

    Yields:
        Path of a new, empty folder in the same directory. It is renamed to
        `path` on success and deleted on failure. An `OSError` on the way
        names `path`.
    """
    directory, name = os.path.split(os.path.abspath(path))
    unfinished = os.path.join(directory, f".{uuid.uuid4().hex}.{name}")
    former = f"{unfinished}.former"
    os.mkdir(unfinished)
    try:
        with _named(path, unfinished):
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
