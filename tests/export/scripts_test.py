"""The export scripts, as a user runs them."""

import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf

from convmixer_tf.models import ConvMixer
from convmixer_tf.training import save_model
from tests.helpers import asymmetric_image
from tests.helpers import randomize

ROOT = pathlib.Path(__file__).parents[2]
NAMES = ("ant", "bee", "cat")


def run(script, *arguments, before=""):
    """Runs a script after the code `before`, in a process of its own."""
    code = (
        f"import runpy, sys; sys.path.insert(0, sys.argv[1])\n{before}\n"
        "sys.argv[:2] = []\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    script = ROOT / "export" / script
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.run(
        [sys.executable, "-c", code, script.parent, script, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    model = ConvMixer(16, 2, 3, 4, input_shape=(24, 24, 3), classes=3)
    save_model(randomize(model), folder / "model.keras", NAMES)
    (folder / "images" / "ant").mkdir(parents=True)
    for i in range(3):
        image = asymmetric_image(30 + i, 40, batch=1, seed=i)[0]
        path = folder / "images" / "ant" / f"{i}.JPEG"
        path.write_bytes(tf.io.encode_jpeg(image).numpy())
    return folder


def test_to_saved_model(saved, tmp_path):
    result = run(
        "to_saved_model.py",
        *(f"--model={saved / 'model.keras'}", f"--output={tmp_path / 'm'}"),
        *(f"--images={saved / 'images'}", "--top=2"),
    )
    assert result.returncode == 0, result.stderr
    assert "Comparing serve_encoded on 3 images" in result.stdout
    assert "top_labels" in result.stdout
    assert "INFO" not in result.stderr
    file = (saved / "images" / "ant" / "0.JPEG").read_bytes()
    serve = tf.saved_model.load(tmp_path / "m").signatures["serve_encoded"]
    labels = serve(image_bytes=tf.constant([file]))["top_labels"].numpy()
    assert labels.shape == (1, 2)
    assert {label.decode() for label in labels[0]} < set(NAMES)


def test_to_tfhub(saved, tmp_path):
    result = run(
        "to_tfhub.py",
        *(f"--model={saved / 'model.keras'}", f"--output={tmp_path / 'm'}"),
        *("--kind=feature_vector", "--max_pixel=1", "--license=mit"),
    )
    assert result.returncode == 0, result.stderr
    assert "Comparing The module on 8 images" in result.stdout
    assert "model.tar.gz" in result.stdout
    page = (tmp_path / "m" / "README.md").read_text()
    assert "<!-- license: mit -->" in page
    assert "**Pixels are in [0, 1]**" in page


SPOIL = """
import keras
import convmixer_tf.export.{module} as exporter

original = exporter.{function}
exporter.{function} = lambda model, *arguments: original(
    keras.models.clone_model(model), *arguments  # Of other weights.
)
"""


@pytest.mark.large
@pytest.mark.parametrize(
    ("script", "module", "function"),
    [
        ("to_saved_model.py", "saved_model", "in_float32"),
        ("to_tfhub.py", "tfhub", "rebuilt"),
    ],
)
def test_what_differs_is_not_kept(saved, tmp_path, script, module, function):
    result = run(
        script,
        *(f"--model={saved / 'model.keras'}", f"--output={tmp_path / 'm'}"),
        before=SPOIL.format(module=module, function=function),
    )
    assert result.returncode != 0
    assert "differs from the Keras model by" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_wrong_flags_end_it_at_once(saved, tmp_path):
    weights = saved / "model.weights.h5"
    ConvMixer(4, 1, 3, 4, classes=2).save_weights(weights)
    for model, message in (
        ("768", "--model must be a .keras file, a file of weights, or one of"),
        (weights, "does not tell the activation of its ConvMixer"),
    ):
        result = run(
            "to_saved_model.py", f"--model={model}", f"--output={tmp_path}/m"
        )
        assert result.returncode != 0
        assert message in result.stderr
    assert list(tmp_path.iterdir()) == []
