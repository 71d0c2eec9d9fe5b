"""Reads and writes CSV tables of images and labels."""

import codecs
import csv
import io
import os
import pathlib

from convmixer_tf.files import parse_lines
from convmixer_tf.files import replaced

COLUMNS = ("path", "label", "split")
SEPARATOR = ";"  # Between the labels of an image.

_ALIASES = {
    "path": ("path", "file", "filename", "image"),
    "label": ("label", "labels", "class"),
    "split": ("split",),
}


def read_table(path: str) -> list[tuple[str, tuple[str, ...], str | None]]:
    """Reads a table of images.

    Args:
        path: Path of a CSV file in UTF-8, with or without a byte order mark.
            Its first line names the columns: `path` (relative to the file's
            folder, or absolute), `label`, and `split` if the images are split.
            Semicolons separate several labels of an image. An empty cell means
            no label.

    Returns:
        List of a path, labels and a split for each image. The split is `None`
        if there is no such column.

    Raises:
        FileNotFoundError: If the file or an image does not exist.
        ValueError: If the file is not such a table. The message names the line.
    """
    content = pathlib.Path(path).read_bytes()
    content = content.removeprefix(codecs.BOM_UTF8)
    # A file name may have bytes that are not UTF-8.
    text = content.decode("utf-8", "surrogateescape")
    escaped = text.encode("utf-8", "backslashreplace")
    parse_lines(escaped, os.fspath(path), paths=True)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = _columns(next(reader), path)
        folder = os.path.dirname(os.path.abspath(path))
        rows: list = []
        seen: dict = {}
        for cells in reader:
            where = f"Line {reader.line_num} of `{path}`"
            if not any(cell.strip() for cell in cells):
                continue
            row = _parse(cells, columns, where, folder)
            if row[0] in seen:
                raise ValueError(
                    f"{where} repeats the image of line {seen[row[0]]}. Write "
                    f"several labels of an image as a{SEPARATOR}b in one "
                    f"line. Received: {cells[columns['path']]!r}"
                )
            seen[row[0]] = reader.line_num
            rows.append(row)
    except csv.Error as error:
        raise ValueError(
            f"Line {reader.line_num} of `{path}` can't be read as CSV: {error}."
        ) from error
    if not rows:
        raise ValueError(f"The table `{path}` has no images.")
    return rows


def write_table(path: str, rows: list) -> None:
    """Writes a table that `read_table` reads.

    Args:
        path: Path of the file, which is replaced.
        rows: List of a path, labels and a split for each image.
    """
    with (
        replaced(path) as unfinished,
        open(
            unfinished,
            "w",
            newline="",
            encoding="utf-8",
            errors="surrogateescape",
        ) as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, labels, split in rows:
            writer.writerow((name, SEPARATOR.join(labels), split))


def _columns(header, path):
    """Finds the index of each column."""
    names = [name.strip().lower() for name in header]
    columns = {
        column: next(i for i, name in enumerate(names) if name in aliases)
        for column, aliases in _ALIASES.items()
        if set(aliases) & set(names)
    }
    if not {"path", "label"} <= columns.keys():
        raise ValueError(
            f"Line 1 of `{path}` must name the columns `path` and `label`, and "
            f"`split` if the images are split. Received: {header!r:.80}"
        )
    return columns


def _parse(cells, columns, where, folder):
    """Reads one line of a table."""
    if len(cells) <= max(columns.values()):
        raise ValueError(
            f"{where} must have {max(columns.values()) + 1} cells. "
            f"Received: {cells!r:.80}"
        )
    path, label = (cells[columns[x]].strip() for x in ("path", "label"))
    full = os.path.join(folder, path)
    if not os.path.isfile(full):
        raise FileNotFoundError(
            f"{where} names an image that does not exist: "
            f"{full.encode('utf-8', 'backslashreplace').decode()!r}"
        )
    labels = tuple(x.strip() for x in label.split(SEPARATOR) if x.strip())
    wrong = [x for x in labels if not x.isprintable()]
    if wrong:
        raise ValueError(
            f"{where} has a label that is not UTF-8 text. Received: {wrong!r}"
        )
    split = cells[columns["split"]].strip() if "split" in columns else None
    return full, labels, split
