"""Tests progress lines of silent commands."""

import time

import pytest

from convmixer_tf import progress


@pytest.fixture
def lines(monkeypatch):
    monkeypatch.setattr(progress, "FIRST", 0.1)
    monkeypatch.setattr(progress, "MOST", 0.2)
    return []


def test_a_silence_is_broken_ever_more_rarely(lines):
    with progress.told(lines.append):
        progress.note("%d of %d images", 3, 9)
        time.sleep(0.75)
    assert 2 <= len(lines) <= 4
    assert {line.split(": ")[1] for line in lines} == {"3 of 9 images"}
    count = len(lines)
    time.sleep(0.3)
    assert len(lines) == count


def test_who_speaks_is_left_alone(lines):
    with progress.told(lines.append):
        for _ in range(30):
            progress.touch()
            time.sleep(0.01)
    assert lines == []


def test_an_error_ends_it(lines):
    with pytest.raises(ValueError, match="wrong"), progress.told(lines.append):
        raise ValueError("wrong")
    time.sleep(0.3)
    assert lines == []


def test_it_is_written_to_the_standard_error(lines, capsys):
    with progress.told():
        progress.note("loading %s", "it")
        time.sleep(0.15)
    assert capsys.readouterr().err == "0 s: loading it\n"
