"""How scripts end when something is wrong."""

import pathlib
import subprocess
import sys

import pytest

RECIPES = pathlib.Path(__file__).parents[2] / "recipes"
SCRIPT = """
import sys
sys.path.insert(0, {recipes!r})
import launch

def main(argv):
    {body}

launch.run(main)
"""


@pytest.mark.parametrize(
    ("body", "last_line", "traceback"),
    [
        (
            "import convmixer_tf; convmixer_tf.ConvMixer(0, 1, 1, 1)",
            "ValueError: Argument `dim` must be a positive integer. "
            "Received: dim=0",
            False,
        ),
        ("int('x')", "ValueError: invalid literal for int()", True),
        ("import json; json.loads('x')", "json.decoder.JSONDecodeError", True),
        ("assert False, 'a mistake'", "AssertionError: a mistake", True),
    ],
)
def test_our_own_errors_end_in_one_line(tmp_path, body, last_line, traceback):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(recipes=str(RECIPES), body=body))
    for flag in ("--verbosity=-1", "--verbosity=1"):
        result = subprocess.run(
            [sys.executable, path, flag],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.returncode == 1
        assert result.stderr.splitlines()[-1].startswith(last_line)
        wanted = traceback or flag == "--verbosity=1"
        assert ("Traceback" in result.stderr) == wanted
