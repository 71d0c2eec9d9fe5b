"""Tests failing writes: no partial files, and old files are kept."""

import contextlib
import shutil
import subprocess
import tempfile

import pytest

from convmixer_tf.export import export_onnx
from convmixer_tf.export import export_saved_model
from convmixer_tf.export import export_tfhub
from convmixer_tf.export import export_tflite
from convmixer_tf.export.saved_model import SAVED_MODEL_FILE
from convmixer_tf.export.tfhub import MARK
from convmixer_tf.models import ConvMixer
from tests.helpers import files_up_to

EXPORTS = {
    "model.tflite": export_tflite,
    "model.onnx": export_onnx,
    "saved_model": export_saved_model,
    "module": export_tfhub,
}
# Files that identify a folder that may be replaced.
MARKS = {"saved_model": SAVED_MODEL_FILE, "module": MARK}


@pytest.fixture(scope="module")
def model():
    # Not square, so without the signature for files, which is slow.
    return ConvMixer(64, 2, 3, 4, input_shape=(16, 12, 3), classes=3)


@pytest.fixture
def disk(tmp_path):
    """An empty disk of 4 MB, in memory."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", path]
    if not shutil.which("mount") or subprocess.call(
        command, stderr=subprocess.DEVNULL
    ):
        pytest.skip("needs the right to mount a disk")
    yield path
    subprocess.run(["umount", path], check=True)


def write_former(folder, name):
    """Creates an existing export that may be replaced."""
    path = folder / name / MARKS.get(name, "")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("precious")
    return content(folder)


def content(folder):
    """Reads all files, including hidden ones."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def fill(disk):
    """Leaves two free pages, too few for any export."""
    with open(disk / "filler", "wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(file.tell() - 8192)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTS)
def test_a_full_disk(name, model, disk):
    former = write_former(disk, name)
    fill(disk)
    with pytest.raises(OSError, match="No space left on device") as caught:
        EXPORTS[name](model, disk / name, overwrite=True)
    # The message must not contain the temporary name.
    assert f".{name}" not in str(caught.value)
    (disk / "filler").unlink()
    assert content(disk) == former
    EXPORTS[name](model, disk / name, overwrite=True)
    assert content(disk).keys() >= former.keys()
    assert content(disk) != former
    assert [path.name for path in disk.iterdir()] == [name]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTS)
def test_files_that_grow_too_large(name, model, tmp_path):
    former = write_former(tmp_path, name)
    with (
        files_up_to(20_000),
        pytest.raises(OSError, match="File too large"),
    ):
        EXPORTS[name](model, tmp_path / name, overwrite=True)
    assert content(tmp_path) == former


def test_a_full_folder_for_temporary_files(model, disk, tmp_path, monkeypatch):
    fill(disk)
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    with pytest.raises(OSError, match=r"temporary folder `.*disk.*`: No space"):
        export_tflite(model, tmp_path / "model.tflite")
    assert not (tmp_path / "model.tflite").exists()


@pytest.mark.parametrize("name", EXPORTS)
def test_places_that_are_not_to_be_written(name, model, tmp_path, request):
    message = "Can't write to the directory `.*`: "
    with pytest.raises(OSError, match=f"{message}No such file"):
        EXPORTS[name](model, f"/proc/{name}")
    (tmp_path / "file").write_text("precious")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        EXPORTS[name](model, tmp_path / "file" / name)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        EXPORTS[name](model, tmp_path / "missing" / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    disk = request.getfixturevalue("disk")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(OSError, match=f"{message}Read-only file system"):
        EXPORTS[name](model, disk / name)


@pytest.mark.parametrize("name", ["model.tflite", "model.onnx"])
def test_a_folder_in_the_place_of_a_file(name, model, tmp_path):
    (tmp_path / name / "photos").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="is a folder"):
        EXPORTS[name](model, tmp_path / name, overwrite=True)
    assert (tmp_path / name / "photos").is_dir()
