"""The notebook runs from its first cell to its last, without a network."""

import hashlib
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from convmixer_tf import open_model
from tests.helpers import ROOT
from tests.helpers import write_images

NOTEBOOK = ROOT / "recipes" / "tour.ipynb"


def outputs(path):
    """Lists the outputs of each code cell."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [x["outputs"] for x in cells if x["cell_type"] == "code"]


def kinds(path):
    """Lists which kinds of outputs the code cells have."""
    return [
        sorted(
            {kind for x in cell if "data" in x for kind in x["data"]}
            | {x["name"] for x in cell if x.get("name") == "stdout"}
        )
        for cell in outputs(path)
    ]


def text(path):
    return "".join(
        "".join(
            output.get("text", output.get("data", {}).get("text/markdown", ""))
        )
        for cell in outputs(path)
        for output in cell
    )


def test_what_is_committed_ran_in_order_and_is_small():
    assert NOTEBOOK.stat().st_size < 400_000
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in code]
    assert counts == list(range(1, len(code) + 1))
    for output in itertools.chain(*outputs(NOTEBOOK)):
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr"
    assert sum("image/png" in found for found in kinds(NOTEBOOK)) == 1
    assert "| yes |" in text(NOTEBOOK)
    # Run the notebook again after other weights are packaged.
    digest = hashlib.sha1()
    for weight in open_model("256_8").model.get_weights():
        digest.update(weight.tobytes())
    assert f"weights: {digest.hexdigest()[:12]}" in text(NOTEBOOK)


@pytest.mark.large
def test_it_runs(tmp_path):
    copy = tmp_path / NOTEBOOK.name
    shutil.copyfile(NOTEBOOK, copy)
    write_images(tmp_path / "photos" / "train", ("cat", "dog"), 20, 32)
    write_images(tmp_path / "photos" / "test", ("cat", "dog"), 10, 40)
    refuse = tmp_path / "sitecustomize.py"
    refuse.write_text(
        "import socket\n"
        "connect = socket.socket.connect\n"
        "def local(self, address):\n"
        "    host = address[0] if isinstance(address, tuple) else 'unix'\n"
        "    assert host in ('unix', '127.0.0.1', 'localhost'), address\n"
        "    return connect(self, address)\n"
        "socket.socket.connect = local\n"
    )
    result = subprocess.run(
        ["jupyter", "execute", "--inplace", copy],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        env={
            **os.environ,
            "PATH": os.pathsep.join(
                [str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]
            ),
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
            "PHOTOS": str(tmp_path / "photos"),
        },
        check=False,
    )
    assert result.returncode == 0, result.stderr[-6000:]
    assert kinds(copy) == kinds(NOTEBOOK)
    assert "| yes |" in text(copy)
