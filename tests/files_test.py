import pytest

from convmixer_tf.files import replaced
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
