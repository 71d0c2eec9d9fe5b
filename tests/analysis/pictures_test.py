"""Tests where pictures are written and the errors if they can't be."""

import sys

import pytest

from convmixer_tf.analysis.pictures import new_picture


def test_names_the_missing_library(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with (
        pytest.raises(ImportError, match=r"need matplotlib.*\[train\]"),
        new_picture(tmp_path / "x.png", (1, 1)),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("x.jpg", ValueError, "must end in .png"),
        ("no/x.png", FileNotFoundError, "does not exist"),
        ("there.png", FileExistsError, "pass `--overwrite`"),
    ],
)
def test_wrong_destinations(tmp_path, name, error, message):
    (tmp_path / "there.png").write_text("mine")
    with (
        pytest.raises(error, match=message),
        new_picture(tmp_path / name, (1, 1)),
    ):
        pass
    assert (tmp_path / "there.png").read_text() == "mine"


def test_a_failure_leaves_nothing(tmp_path):
    def draw():
        with new_picture(tmp_path / "x.png", (1, 1)):
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        draw()
    assert list(tmp_path.iterdir()) == []
