import json
import os

import pytest

from convmixer_tf.files import check_folder_destination
from convmixer_tf.files import dump_json
from convmixer_tf.files import made_parents
from convmixer_tf.files import parse_lines
from convmixer_tf.files import read_lines
from convmixer_tf.files import replaced
from convmixer_tf.files import replaced_folder
from convmixer_tf.files import size_of


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")

    def fail():
        with replaced(path) as unfinished:
            with open(unfinished, "w") as file:
                file.write("half of the n")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_finished_write_replaces_it(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")
    with replaced(path) as unfinished:
        assert unfinished.endswith(".json")
        with open(unfinished, "w") as file:
            file.write("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_size_of_a_file_and_of_a_folder(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"123")
    (tmp_path / "a" / "b" / "two").write_bytes(b"4567")
    assert size_of(tmp_path / "a" / "one") == 3
    assert size_of(str(tmp_path / "a")) == 7


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def write_folder(path, text, fail=False):
    with replaced_folder(path) as unfinished:
        with open(os.path.join(unfinished, "a.txt"), "w") as file:
            file.write(text)
        if fail:
            raise OSError("disk full")


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_folder_appears_whole_or_stays_as_it_was(tmp_path, slash):
    path = tmp_path / "model"
    with pytest.raises(OSError, match="disk full"):
        write_folder(f"{path}{slash}", "half", fail=True)
    assert list(tmp_path.iterdir()) == []
    write_folder(f"{path}{slash}", "old")
    (path / "b.txt").write_text("more")
    with pytest.raises(OSError, match="disk full"):
        write_folder(f"{path}{slash}", "half", fail=True)
    assert content(path) == {"a.txt": "old", "b.txt": "more"}
    write_folder(f"{path}{slash}", "new")
    assert content(path) == {"a.txt": "new"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path, monkeypatch
):
    path = tmp_path / "model"
    write_folder(path, "old")
    rename = os.rename

    def fail_at_last(source, target):
        if os.path.exists(os.path.join(source, "a.txt")) and "former" not in (
            f"{source}{target}"
        ):
            raise OSError("no such luck")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_at_last)
    with pytest.raises(OSError, match="no such luck"):
        write_folder(path, "new")
    assert content(path) == {"a.txt": "old"}
    assert list(tmp_path.iterdir()) == [path]


def fail_within(path, name=None):
    with made_parents(path):
        if name:
            (path.parent / name).touch()
        raise ValueError("no")


def test_parents_stay_if_something_is_in_them(tmp_path):
    path = tmp_path / "old" / "new" / "file"
    (tmp_path / "old").mkdir()
    with pytest.raises(ValueError, match="no"):
        fail_within(path)
    assert list((tmp_path / "old").iterdir()) == []
    with pytest.raises(ValueError, match="no"):
        fail_within(path, "report")
    assert [x.name for x in path.parent.iterdir()] == ["report"]
    with made_parents(path / "deeper"):
        pass
    assert path.is_dir()
    with pytest.raises(OSError, match="report"):
        fail_within(path.parent / "report" / "file")


def test_only_a_folder_of_the_kind_may_be_replaced(tmp_path):
    path = tmp_path / "model"
    check_folder_destination(path, "a.txt")
    path.mkdir()
    check_folder_destination(path, "a.txt")
    (path / "photo.jpg").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=r"has no `a\.txt`"):
            check_folder_destination(path, "a.txt", overwrite)
    write_folder(path, "of the kind")
    with pytest.raises(FileExistsError, match="pass `--overwrite`"):
        check_folder_destination(path, "a.txt")
    check_folder_destination(path, "a.txt", overwrite=True)
    with pytest.raises(FileExistsError, match="not replaced"):
        check_folder_destination(path / "a.txt", "a.txt", overwrite=True)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check_folder_destination(tmp_path / "missing" / "m", "a.txt")


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "facts.json"
    dump_json(path, {"name": "größe"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "größe"}
    with pytest.raises(TypeError, match="not JSON serializable"):
        dump_json(path, {"name": path})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "größe"}
    assert list(tmp_path.iterdir()) == [path]


def test_lines_of_a_text_file_as_any_editor_writes_it(tmp_path):
    path = tmp_path / "labels.txt"
    for content in (
        "cat\nGans, weiß\n".encode(),
        "cat\nGans, weiß".encode(),
        "\ufeffcat\r\nGans, weiß\r\n".encode(),
        "cat\rGans, weiß\r".encode(),
        "cat\nGans, weiß\n\n \n\r\n".encode(),
        "cat  \r\nGans, weiß\t".encode(),
    ):
        path.write_bytes(content)
        assert read_lines(path) == ("cat", "Gans, weiß")


def test_only_line_ends_end_a_line(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("one\u2028two\x0bthree\nfour\n", encoding="utf-8")
    assert read_lines(path) == ("one\u2028two\x0bthree", "four")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cat\n".encode("utf-16"), "must be UTF-8 text, but it is UTF-16"),
        ("cat\n".encode("utf-16-be"), "must be UTF-8 text, but it is UTF-16"),
        ("cat\n".encode("utf-32"), "must be UTF-8 text, but it is UTF-16"),
        ("cat\nweiß\n".encode("latin-1"), "Line 2 of `.*labels.txt` is not"),
        (b"", "`.*labels.txt` is empty"),
        (b"\xef\xbb\xbf", "`.*labels.txt` is empty"),
        (b"\n\r\n  \n", "`.*labels.txt` is empty"),
        (b"cat\n\ndog\n", "Line 2 of `.*labels.txt` is blank"),
        ("cat\n\xa0\ndog\n".encode(), "Line 2 of `.*labels.txt` is blank"),
    ],
)
def test_what_is_no_list_of_names_is_refused(tmp_path, content, message):
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_lines(path)


def test_lines_may_have_to_be_unique(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("crane\ncat\ncrane\n")
    assert read_lines(path) == ("crane", "cat", "crane")
    with pytest.raises(ValueError, match=r"Line 3 .* repeats line 1.*'crane'"):
        read_lines(path, unique=True)


def test_lines_that_are_paths(tmp_path):
    name = os.path.join(os.fsencode(tmp_path), b"Stra\xdfe.png")
    with open(name, "wb"):
        pass
    content = b"\xef\xbb\xbfa.png\n\n" + name + b"\r\n"
    assert parse_lines(content, "list", paths=True) == (
        "a.png",
        os.fsdecode(name),
    )
    path = tmp_path / "a photo.png"
    path.touch()
    for line in (f'"{path}"', f"'{path}'", f"\t{path}  ", f' "{path}" '):
        assert parse_lines(line.encode(), "list", paths=True) == (str(path),)
    # Names of missing files stay unchanged, for the message.
    assert parse_lines(b'"a.png"', "list", paths=True) == ('"a.png"',)
    with pytest.raises(ValueError, match="Line 2 of `list` is not"):
        parse_lines(b"a.png\nmissing \xdf.png\n", "list", paths=True)
    with pytest.raises(ValueError, match="`list` is empty"):
        parse_lines(b"\n", "list", paths=True)
