import pytest

from convmixer_tf.files import replaced


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
