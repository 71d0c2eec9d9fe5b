"""Finds the images of a bulk prediction, divides them and reads them."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import logging
import os
import pathlib
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from convmixer_tf.data.datasets import EXTENSIONS
from convmixer_tf.data.datasets import walk_images
from convmixer_tf.data.pillow import pillow_extensions
from convmixer_tf.data.records import count_records
from convmixer_tf.data.records import is_record_file
from convmixer_tf.data.records import read_record_images
from convmixer_tf.data.unreadable import why_unreadable
from convmixer_tf.files import is_remote
from convmixer_tf.files import parse_lines

# Files that a worker reads in parallel, because buckets answer slowly.
_READERS = 16
_PATH_COLUMNS = ("path", "file", "filename", "image")
_LOG = logging.getLogger(__name__)

Image = tuple[str, bytes | None]


@dataclasses.dataclass(frozen=True)
class Part:
    """Consecutive images of a source, which one worker reads.

    Attributes:
        kind: `"files"`, `"records"` or `"parquet"`.
        file: Path of the TFRecord or Parquet file.
        start: Integer, the position of the first image in the source or file.
        count: Integer, the number of images.
        names: Paths of the images, if the kind is `"files"`.
    """

    kind: str
    file: str
    start: int
    count: int
    names: tuple[str, ...] = ()

    def divided(self, size: int) -> Iterator[Part]:
        """Yields parts of at most `size` images."""
        for start in range(0, self.count, size):
            count = min(size, self.count - start)
            names = self.names[start : start + count]
            yield dataclasses.replace(
                self, start=self.start + start, count=count, names=names
            )


def find_parts(source: str) -> list[Part]:
    """Finds the images of a source.

    Args:
        source: As for `map_images`.

    Returns:
        List of `Part`: one for all image files, or one for each TFRecord or
        Parquet file. The order depends on names only.

    Raises:
        FileNotFoundError: If there is no image.
        ValueError: If a file is damaged or has no column of images.
    """
    suffix = os.path.splitext(source)[1].lower()
    if suffix in (".txt", ".csv"):
        return [_of_files(_read_list(source, suffix))]
    if suffix == ".parquet" or (is_record_file(source) and _is_file(source)):
        images, others = [], [source]
    elif is_remote(source):
        images, others = _walk_bucket(source)
    elif os.path.isdir(source):
        images, others = walk_images(os.path.abspath(source))
    elif os.path.isfile(source):
        return [_of_files([os.path.abspath(source)])]
    else:
        raise FileNotFoundError(f"There is no file or folder `{source}`.")
    if images:
        if others:
            _LOG.warning("Skipped: %d files that are not images.", len(others))
        return [_of_files(images)]
    tables = [x for x in others if x.lower().endswith(".parquet")]
    records = [] if tables else [x for x in others if is_record_file(x)]
    parts = [_of_table(_absolute(path)) for path in tables]
    for path in map(_absolute, records):
        parts.append(Part("records", path, 0, count_records(path)))
    if not sum(part.count for part in parts):
        raise FileNotFoundError(
            f"There are no images in `{source}`. Expected files "
            f"*{{{','.join(EXTENSIONS)}}}, *.parquet or *tfrecord*."
        )
    return parts


def read_batches(part: Part, size: int) -> Iterator[list[Image]]:
    """Reads the images of a part.

    Args:
        part: A `Part`.
        size: Integer, images in a batch.

    Yields:
        List of at most `size` pairs: the name of an image, and its encoded
        bytes or `None` if it can't be read.
    """
    if part.kind == "files":
        with ThreadPoolExecutor(_READERS) as pool:
            for start in range(0, part.count, size):
                names = part.names[start : start + size]
                yield list(zip(names, pool.map(_read_file, names), strict=True))
        return
    read = _read_records if part.kind == "records" else _read_rows
    batch: list[Image] = []
    for image in read(part):
        batch.append(image)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def why_not(part: Part, name: str, content: bytes | None) -> str:
    """Returns why an image of a part can't be read, as in `predict`."""
    if content is None and part.kind == "records":
        return "unreadable: its record is damaged. Copy the file again."
    local = part.kind == "files" and not is_remote(name)
    why = why_unreadable(name if content is None or local else content)
    return f"unreadable: {why[0].lower()}{why[1:]}"


@functools.cache
def _bucket(root: str) -> tuple[Any, str]:
    from pyarrow import fs

    return fs.FileSystem.from_uri(root)


def locate(path: str) -> tuple[Any, str]:
    """Finds the file system of a path or URL, and the path there.

    Args:
        path: Path, or URL that `pyarrow.fs` knows, such as `gs://bucket/x`.

    Returns:
        A `pyarrow.fs.FileSystem` and a string.
    """
    if not is_remote(path):
        return _bucket("file:///")[0], os.path.abspath(path)
    scheme, rest = path.split("://", 1)
    host, _, inner = rest.partition("/")
    filesystem, root = _bucket(f"{scheme}://{host}/")
    return filesystem, f"{root.rstrip('/')}/{inner}".rstrip("/")


def _absolute(path):
    return path if is_remote(path) else os.path.abspath(path)


def _is_file(path):
    filesystem, inner = locate(path)
    return filesystem.get_file_info(inner).is_file


def _open(path):
    """Opens a local or remote file for reading and seeking."""
    if not is_remote(path):
        return open(path, "rb")
    filesystem, inner = locate(path)
    return filesystem.open_input_file(inner)


def _of_files(names):
    names = tuple(dict.fromkeys(names))
    return Part("files", "", 0, len(names), names)


def _walk_bucket(source):
    """Lists images and other files, as `walk_images` does."""
    from pyarrow import fs

    filesystem, root = locate(source)
    found = filesystem.get_file_info(
        fs.FileSelector(root, allow_not_found=True, recursive=True)
    )
    suffixes = (*EXTENSIONS, *pillow_extensions())
    images, others = [], []
    for info in found:
        inner = info.path[len(root) :].strip("/")
        if info.is_file and not any(
            x.startswith((".", "__MACOSX")) for x in inner.split("/")
        ):
            is_image = inner.lower().endswith(suffixes)
            path = f"{source.rstrip('/')}/{inner}"
            (images if is_image else others).append(path)
    return sorted(images), sorted(others)


def _beside(source, path):
    """Makes a path absolute. It is relative to the file that lists it."""
    if is_remote(path) or os.path.isabs(path):
        return path
    if is_remote(source):
        return urllib.parse.urljoin(source, path)
    return os.path.join(os.path.dirname(os.path.abspath(source)), path)


def _read_list(source, suffix):
    """Reads the paths in a text or CSV file."""
    with _open(source) as file:
        content = file.read()
    if suffix == ".txt":  # Paths are relative to the current folder.
        lines = parse_lines(content, source, paths=True)
        return [*map(_absolute, lines)]
    text = content.decode("utf-8-sig", "surrogateescape")
    rows = csv.DictReader(io.StringIO(text, newline=""))
    names = {x.strip().lower(): x for x in rows.fieldnames or ()}
    column = next((names[x] for x in _PATH_COLUMNS if x in names), None)
    if column is None:
        raise ValueError(
            f"Line 1 of `{source}` must name the column `path`. "
            f"Received: {list(rows.fieldnames or ())!r:.80}"
        )
    found = [_beside(source, x[column].strip()) for x in rows if x[column]]
    if not found:
        raise ValueError(f"The table `{source}` lists no images.")
    return found


def _read_file(name):
    try:
        if is_remote(name):
            filesystem, inner = locate(name)
            with filesystem.open_input_stream(inner) as file:
                return file.read()
        # Opening a pipe would block.
        return pathlib.Path(name).read_bytes() if os.path.isfile(name) else None
    except (OSError, ValueError):
        return None


def _read_records(part):
    images = read_record_images(part.file, part.start, part.count)
    for number, image in enumerate(images, part.start):
        yield f"{part.file}, record {number}", image


def _columns(file, path):
    """Finds the columns of encoded images and of paths."""
    found = [file.schema.column(i).path for i in range(len(file.schema))]
    kinds = [("bytes", "image.bytes"), ("path", "image.path")]
    columns = [next((x for x in kind if x in found), None) for kind in kinds]
    if not any(columns):
        raise ValueError(
            f"`{path}` must have a column `bytes`, with encoded images, or "
            f"`path`. Received: {', '.join(found)}"
        )
    return columns


def _of_table(path):
    import pyarrow
    from pyarrow import parquet

    try:
        with _open(path) as content, parquet.ParquetFile(content) as file:
            _columns(file, path)
            return Part("parquet", path, 0, file.metadata.num_rows)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(
            f"`{path}` is damaged or not a Parquet file: {error}"
        ) from error


def _read_rows(part):
    """Reads rows of a Parquet file, and only the row groups they are in."""
    import pyarrow
    from pyarrow import parquet

    with (
        _open(part.file) as content,
        parquet.ParquetFile(content, buffer_size=2**20) as file,
    ):
        encoded, paths = _columns(file, part.file)
        groups, row, end = [], 0, 0
        for group in range(file.num_row_groups):
            start, end = end, end + file.metadata.row_group(group).num_rows
            if start < part.start + part.count and end > part.start:
                row = row if groups else start
                groups.append(group)
        columns = [x for x in (encoded, paths) if x]
        for batch in file.iter_batches(
            _READERS, row_groups=groups, columns=columns
        ):
            table = pyarrow.Table.from_batches([batch]).flatten().to_pydict()
            for index in range(len(batch)):
                if part.start <= row < part.start + part.count:
                    name = table[paths][index] if paths else None
                    if encoded:
                        content = table[encoded][index] or b""
                    else:
                        name = _beside(part.file, name or "")
                        content = _read_file(name)
                    yield name or f"{part.file}, row {row}", content
                row += 1
