"""Tests the script that draws contact sheets."""

import pytest

from tests.helpers import call_script


def run(*arguments):
    return call_script("recipes/show_augmentation.py", *arguments)


@pytest.mark.slow
def test_writes_a_png(tmp_path):
    path = tmp_path / "sheet.png"
    result = run(
        f"--output={path}",
        "--augmentation=none",
        "--image_size=16",
        "--columns=2",
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert path.read_bytes().startswith(b"\x89PNG")


def test_refuses_another_suffix_before_work(tmp_path):
    result = run(f"--output={tmp_path / 'sheet.jpg'}")
    assert result.returncode != 0
    assert "must end in .png" in result.stderr
