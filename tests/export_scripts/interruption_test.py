"""Tests export scripts that are interrupted, killed or can't write."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.helpers import ROOT
from tests.helpers import call_script
from tests.helpers import run_script

# The output of each script and its flag.
OUTPUTS = {
    "to_tflite": ("toy_float32.tflite", ""),
    "to_onnx": ("toy.onnx", "toy.onnx"),
    "to_saved_model": ("saved_model", "saved_model"),
    "to_tfhub": ("module", "module"),
}
# The log lines for signals. Seconds of export or sleep follow them.
WRITING, VERIFYING = "Exporting to", "Verifying"
SLOW = f"""
import time
import convmixer_tf.export
module = sys.modules["convmixer_tf.export.verification.verify"]
def predict(*arguments, run=module.predict):
    print("{VERIFYING}", file=sys.stderr, flush=True)
    time.sleep(60)
    return run(*arguments)
module.predict = predict
"""


def arguments(script, model, images, folder):
    quantization = ["--quantization=float32"] if script == "to_tflite" else []
    output = f"--output={folder / OUTPUTS[script][1]}"
    return [model, output, *images, *quantization]


def hit(script, line, number, flags):
    """Sends a signal to a slow script as soon as it logs a line.

    All its processes get the signal, as from a terminal.

    Returns:
        Its exit status, and what it wrote to its standard error.
    """
    path = [str(ROOT / "export"), *filter(None, sys.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    code = (
        f"import runpy, sys\n{SLOW}\nsys.argv.pop(0)\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, ROOT / f"export/{script}.py", *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background jobs ignore it, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env=environment,
    ) as process:
        lines = []
        for text in process.stderr:
            lines.append(text)
            if line in text:
                os.killpg(process.pid, number)
                break
        lines += process.stderr.readlines()
    return process.returncode, lines


@pytest.mark.large
@pytest.mark.parametrize("script", OUTPUTS)
def test_an_export_that_is_interrupted(script, model, images, tmp_path):
    name = OUTPUTS[script][0]
    flags = arguments(script, model, images, tmp_path)
    code, lines = hit(script, VERIFYING, signal.SIGINT, flags)
    assert code == 130, lines
    assert lines[-1] == "Interrupted. Incomplete output was removed.\n"
    assert "Traceback (most recent call last):\n" not in lines
    assert list(tmp_path.iterdir()) == []

    left = set()
    for line in (WRITING, VERIFYING):
        code, lines = hit(script, line, signal.SIGKILL, flags)
        assert code == -signal.SIGKILL, lines
        left |= {path.name for path in tmp_path.iterdir()}
        assert name not in left
    # It is not mistaken for an export.
    assert left
    assert all(rest.startswith(".") for rest in left)

    result = run_script(f"export/{script}.py", *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    report = json.loads((tmp_path / f"{name}.json").read_text())
    assert report["passed"]
    written = {path.name for path in tmp_path.iterdir()}
    assert written - left == {name, f"{name}.json", f"{name}.md"}


FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
"""


@pytest.mark.large
@pytest.mark.parametrize("script", OUTPUTS)
def test_what_cannot_be_written_ends_in_a_line(script, model, images, tmp_path):
    """Simulates a full disk with a limit on file sizes."""
    result = run_script(
        f"export/{script}.py",
        *arguments(script, model, images, tmp_path),
        before=FULL,
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert "File too large" in last
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file(model, images, tmp_path):
    (tmp_path / "file").write_text("precious")
    flags = arguments("to_tflite", model, images, tmp_path / "file")
    result = call_script("export/to_tflite.py", *flags)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in result.stderr
    assert (tmp_path / "file").read_text() == "precious"
