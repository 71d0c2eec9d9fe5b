"""Tests the content of a wheel and the metadata files."""

import configparser
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    directory = tmp_path_factory.mktemp("wheel")
    # Builds a copy, to exclude files of older builds. Builds without isolation
    # and network: the extra `dev` has setuptools.
    names = (".*", "build", "*.egg-info", "runs", "node_modules")
    ignore = shutil.ignore_patterns(*names)
    shutil.copytree(ROOT, directory / "copy", ignore=ignore)
    command = ["-m", "build", "--wheel", "--no-isolation", "--outdir"]
    result = subprocess.run(
        [sys.executable, *command, directory, directory / "copy"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    (path,) = directory.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = {n for n in wheel.namelist() if ".dist-info/" not in n}
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "convmixer_tf").rglob("*")
        if path.suffix in (".py", ".csv", ".typed")
        or path.parent.match("convmixer_tf/weights/packaged")
    }
    assert names == expected
    assert "convmixer_tf/preprocessing/imagenet_classes.csv" in names
    licenses = [n for n in wheel.namelist() if n.endswith("LICENSE")]
    assert len(licenses) == 1


def test_metadata(wheel):
    (name,) = (n for n in wheel.namelist() if n.endswith("/METADATA"))
    metadata = wheel.read(name).decode()
    core = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", metadata, re.M)
    assert sorted(core) == [
        "h5py",
        "huggingface_hub",
        "keras",
        "ml_dtypes",
        "numpy",
        "safetensors",
        "tensorflow",
    ]
    extras = re.findall(r"^Provides-Extra: ([\w-]+)$", metadata, re.M)
    assert sorted(extras) == [
        "dev",
        "export",
        "keras-cv",
        "qat",
        "ray",
        "serve",
        "train",
    ]
    assert "Requires-Python: <3.14,>=3.11" in metadata


def test_every_requirement_is_a_range():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"]
    lines += "\n".join(config["options.extras_require"].values())
    for line in lines.split():
        if not line.startswith("convmixer_tf["):
            assert re.fullmatch(r"[\w-]+(\[data\])?>=[\d.]+,<[\d.]+", line), (
                line
            )
