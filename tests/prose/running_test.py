"""Runs the documents' commands unchanged on small data.

They run in a copy of the checkout, in the order of `coverage.py`. FOLDER has
photographs of 40 x 48 pixels, cropped from scikit-learn's two.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from PIL import Image
from safetensors.numpy import save
from sklearn.datasets import load_sample_images

from convmixer_tf.models import ConvMixer
from convmixer_tf.models import ConvMixer768_32
from convmixer_tf.preprocessing import CIFAR10_CLASSES
from convmixer_tf.weights import PUBLISHED_WEIGHTS
from convmixer_tf.weights import timm_state_dict
from tests.helpers import ROOT
from tests.helpers import randomize
from tests.prose.coverage import COMMANDS
from tests.prose.coverage import Run
from tests.weights.hub_server import running_hub

IMAGES = {"train": 7, "validation": 2, "test": 2}  # of each class
RUNS = {line: run for line, run in COMMANDS.items() if isinstance(run, Run)}


def write_photographs(folder):
    photographs = [Image.fromarray(x) for x in load_sample_images().images]
    number = 0
    for split, count in IMAGES.items():
        for name in CIFAR10_CLASSES:
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                left, top = 48 * (number // 2 % 12), 40 * (number // 24)
                part = photographs[number % 2].crop(
                    (left, top, left + 48, top + 40)
                )
                part.save(folder / split / name / f"{i}.jpg")
                number += 1


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout with the data that the documents assume."""
    folder = tmp_path_factory.mktemp("checkout")
    names = ("__pycache__", "node_modules", "results", "public", "dist")
    for name in ("convmixer_tf", "recipes", "export"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns(*names)
        )
    write_photographs(folder / "FOLDER")
    shutil.copyfile(load_sample_images().filenames[0], folder / "photo.jpg")
    (folder / "labels.txt").write_text("\n".join(CIFAR10_CLASSES))
    return folder


@pytest.fixture(scope="module")
def hub(checkout):
    """Has ConvMixer-768/32; the same file is `model.safetensors`."""
    model = randomize(ConvMixer768_32(weights=None))
    content = save(timm_state_dict(model), metadata={"format": "pt"})
    (checkout / "model.safetensors").write_bytes(content)
    published = PUBLISHED_WEIGHTS["convmixer_768_32"]
    with running_hub() as hub:
        hub.files[published.repository, published.filename] = content
        yield hub


@pytest.fixture(scope="module")
def run(checkout, hub):
    """Runs a line in the shell, with this Python."""
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(checkout / "home"),
        "NO_PROXY": "127.0.0.1",
        "PATH": os.pathsep.join(
            [str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]
        ),
        "PYTHONPATH": os.pathsep.join([str(checkout), *filter(None, sys.path)]),
    }

    def run(line):
        result = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=checkout,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr[-6000:]
        return result.stdout

    return run


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line, marks=[getattr(pytest.mark, x) for x in run.tier])
        for line, run in RUNS.items()
    ],
)
def test_command(run, checkout, line):
    how = RUNS[line]
    for package in how.needs:
        # It may be installed but incompatible with other packages.
        code = f"import {package}"
        if subprocess.run([sys.executable, "-c", code]).returncode:
            pytest.skip(f"needs {package}")
    if how.given:
        before, name = how.given
        shutil.copyfile(checkout / before, checkout / name)
    printed = run(f"{line} {how.more}")
    assert printed.strip() or how.makes
    if how.makes:
        assert (checkout / how.makes).exists()


@pytest.mark.peer
@pytest.mark.large
def test_a_checkpoint_of_pytorch(run, checkout):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    (line,) = (x for x in COMMANDS if "convmixer.pth.tar" in x)
    model = ConvMixer(8, 1, 3, 4, input_shape=(16, 16, 3), classes=3)
    state = {
        name: torch.tensor(value)
        for name, value in timm_state_dict(randomize(model)).items()
    }
    torch.save({"state_dict": state}, checkout / "convmixer.pth.tar")
    (checkout / "convmixer.weights.h5").unlink(missing_ok=True)
    run(line)
    assert (checkout / "convmixer.weights.h5").exists()
