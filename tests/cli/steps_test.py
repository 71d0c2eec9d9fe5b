"""Tests the progress bar."""

import io
import time

import pytest

from convmixer_tf import progress
from convmixer_tf.cli.steps import Steps


class Terminal(io.StringIO):
    """A file that claims to be a terminal."""

    def isatty(self):
        return True


def test_the_bar_counts_what_is_done():
    steps = Steps(["read", "learn"], io.StringIO())
    assert steps.line().startswith("[....................] 0 of 2 done, 0:00")
    with steps.step():
        progress.note("image %d of %d", 3, 9)
        assert steps.line().startswith("[....................] 0 of 2 done")
        assert steps.line().endswith("read: image 3 of 9")
    assert steps.line().startswith("[##########..........] 1 of 2 done")
    with steps.step():
        assert steps.line().endswith("learn")
    assert steps.line().startswith("[####################] 2 of 2 done")


def test_what_fails_is_not_done():
    steps = Steps(["read"], io.StringIO())
    with pytest.raises(ValueError, match="bad"), steps.step():
        raise ValueError("bad")
    assert steps.line().startswith("[....................] 0 of 1 done")


def test_a_terminal_gets_one_line_that_is_drawn_anew(monkeypatch):
    monkeypatch.setattr("convmixer_tf.cli.steps._SECONDS", 0.01)
    file = Terminal()
    steps = Steps(["read"], file)
    assert not progress.is_drawn()
    with steps.shown(), steps.step():
        assert progress.is_drawn()
        time.sleep(0.1)
    assert not progress.is_drawn()
    drawn = file.getvalue().split("\r")
    assert len(drawn) > 3
    assert drawn[-1].endswith("\n")
    assert "1 of 1 done" in drawn[-1]
    assert "\n" not in "".join(drawn[:-1])


def test_a_log_gets_a_line_for_each_step():
    file = io.StringIO()
    steps = Steps(["read", "learn"], file)
    with steps.shown():
        for _ in range(2):
            with steps.step():
                pass
    assert file.getvalue() == "1 of 2: read\n2 of 2: learn\n"
