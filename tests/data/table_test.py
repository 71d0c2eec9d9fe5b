"""Tests tables of images. Errors name file and line."""

import os

import pytest

from convmixer_tf.data.table import read_table
from convmixer_tf.data.table import write_table


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "b.jpg", "c, d.jpg"):
        (tmp_path / name).touch()
    return tmp_path


def read(folder, content):
    path = folder / "table.csv"
    path.write_bytes(content)
    return [
        (os.path.relpath(name, folder), labels, split)
        for name, labels, split in read_table(path)
    ]


def test_a_table_is_read_with_mark_quotes_and_any_line_ends(folder):
    content = (
        b"\xef\xbb\xbfpath,label,split\r\na.jpg,cat,train\r\n"
        b'"c, d.jpg",dog;wet,val\r\n\r\n'
    )
    assert read(folder, content) == [
        ("a.jpg", ("cat",), "train"),
        ("c, d.jpg", ("dog", "wet"), "val"),
    ]


def test_columns_go_by_their_names(folder):
    content = b"Class, File,note\ncat,a.jpg,x\n,b.jpg,\n"
    assert read(folder, content) == [
        ("a.jpg", ("cat",), None),
        ("b.jpg", (), None),
    ]


def test_absolute_paths_stay(folder):
    content = f"path,label\n{folder / 'a.jpg'},x\n".encode()
    assert read(folder, content) == [("a.jpg", ("x",), None)]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", ValueError, r"table.csv` is empty"),
        (b"path,label\n", ValueError, r"has no images"),
        (b"a.jpg,cat\n", ValueError, r"Line 1 of .* must name the columns"),
        (b"path,label\na.jpg\n", ValueError, r"Line 2 .* must have 2 cells"),
        (
            b"path,label\na.jpg,x\nno.jpg,x\n",
            FileNotFoundError,
            r"Line 3 .* not exist: '.*no.jpg'",
        ),
        (
            b"path,label\na.jpg,x\na.jpg,y\n",
            ValueError,
            r"Line 3 .* repeats the image of line 2.* a;b",
        ),
        (b"path,label\na.jpg,\xe9\n", ValueError, r"Line 2 .* not .*UTF-8"),
        ("path,label\n".encode("utf-16"), ValueError, r"UTF-16"),
        (b'path,label\n"a.jpg,x\n', ValueError, r"Line 2 .* as CSV"),
    ],
)
def test_an_error_names_file_and_line(folder, content, error, message):
    with pytest.raises(error, match=message) as caught:
        read(folder, content)
    assert "table.csv" in str(caught.value)


def test_what_is_written_is_read_again_also_names_that_are_not_utf8(folder):
    name = os.fsencode(folder) + b"/caf\xe9.jpg"
    with open(name, "wb"):
        pass
    rows = [
        (os.fsdecode(name), ("cat", "dog"), "train"),
        (str(folder / "c, d.jpg"), ("cat",), "test"),
    ]
    write_table(folder / "new.csv", rows)
    assert read_table(folder / "new.csv") == rows
