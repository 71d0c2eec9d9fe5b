"""The contact sheet, as a user draws it."""

import pathlib
import subprocess
import sys

RECIPE = pathlib.Path(__file__).parents[2] / "recipes/show_augmentation.py"


def run(*arguments):
    return subprocess.run(
        [sys.executable, RECIPE, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
    )


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
