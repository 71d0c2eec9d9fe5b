"""Tests the command `convmixer`."""

import configparser
import fnmatch
import functools
import os
import subprocess
import sys
import types

import pytest

from convmixer_tf import command_line
from convmixer_tf.cli import main
from tests.cli.conftest import CLASSES
from tests.helpers import ROOT


@pytest.fixture
def script(tmp_path):
    """The console script."""
    path = tmp_path / "convmixer"
    path.write_text(
        "import sys\nfrom convmixer_tf.cli import main\nsys.exit(main())\n"
    )
    return path


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, "-X", "importtime", script, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        ((), 0, "usage: convmixer COMMAND"),
        (("--help",), 0, "verify    compare an exported file"),
        (("predict", "--help"), 0, "usage: convmixer predict [-h]"),
        (("phone", "--help"), 0, "usage: convmixer phone [-h] --output"),
        (("phone", "photos"), 2, "arguments are required: --output"),
        (("evalute",), 2, "Unknown command 'evalute'. Did you mean evaluate?"),
    ],
)
def test_help_comes_before_tensorflow(script, arguments, status, expected):
    result = run(script, *arguments)
    assert result.returncode == status
    assert expected in result.stdout + result.stderr
    for library in ("tensorflow", "keras", "numpy.random", "absl"):
        assert f"| {library}\n" not in result.stderr.replace("|   ", "| ")


def test_the_package_is_the_command():
    result = subprocess.run(
        [sys.executable, "-m", "convmixer_tf", "phone", "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert result.stdout.startswith("usage: convmixer phone")
    assert result.stderr == ""


def test_the_entry_point_is_there():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    scripts = config["options.entry_points"]["console_scripts"]
    assert scripts.split() == ["convmixer", "=", "convmixer_tf.cli:main"]


def test_predict(photos, start, capsys):
    image = photos / "red" / "0.png"
    assert main(["predict", str(image), f"--model={start}"]) == 0
    assert "0.png  " in capsys.readouterr().out
    assert main(["predict", str(photos / "none.png"), f"--model={start}"]) == 1


@pytest.mark.parametrize(
    ("arguments", "status"), [([], 2), (["--help"], 0), (["tensorrt"], 2)]
)
def test_export_names_its_formats(arguments, status, capsys):
    assert main(["export", *arguments]) == status
    assert "FORMAT: tflite, onnx, saved_model" in capsys.readouterr().out


def test_every_command_has_a_module():
    folder = ROOT / "convmixer_tf" / "cli"
    for name in set(command_line.COMMANDS) - {"predict", "export"}:
        assert (folder / f"{name}.py").is_file(), name


@pytest.mark.slow
def test_the_absl_commands(photos, start, tmp_path):
    """Uses processes because the commands define flags of the same names."""
    script = (
        "import sys; from convmixer_tf.cli import main; sys.exit(main("
        "sys.argv[1:]))"
    )

    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )

    result = call("export", "tflite", "--help")
    assert result.returncode == 0
    assert "--quantization: " in result.stdout
    assert "convmixer export tflite --model" in result.stdout
    result = call(
        *("finetune", f"--data={photos}", f"--model={start}", "--frozen"),
        f"--output={tmp_path / 'run'}",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "run" / "model.keras").is_file()
    assert "Kept: the model with a new head. Wrote " in result.stderr
    result = call("finetune", "--data=nowhere", f"--model={start}")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "nowhere" in result.stderr
    assert len(CLASSES) == 3


@pytest.mark.parametrize(
    ("package", "device", "expected"),
    [
        ("libtpu", "/dev/null", "1"),
        ("libtpu", "/dev/vfio/0", None),
        ("libtpu", "/dev/accel0", None),
        ("other", "/dev/null", None),
    ],
)
def test_only_an_absent_tpu_is_not_searched_for(
    monkeypatch, package, device, expected
):
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "")  # To be restored.
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY")
    found = {"find_spec": lambda name: name == package}
    monkeypatch.setattr(
        command_line.importlib, "util", types.SimpleNamespace(**found)
    )
    monkeypatch.setattr(
        command_line.glob, "glob", functools.partial(fnmatch.filter, [device])
    )
    command_line.skip_absent_tpu()
    assert os.environ.get("TPU_SKIP_MDS_QUERY") == expected
