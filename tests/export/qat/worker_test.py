"""Tests real fine-tuning in a process with Keras 2."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import deploy
from convmixer_tf.export import export_tflite
from convmixer_tf.export.qat import exchange
from convmixer_tf.export.qat import fine_tune
from convmixer_tf.export.qat import graph
from convmixer_tf.export.qat import tuning
from convmixer_tf.models.probabilities import probabilities
from tests.export.qat.samples import IMAGES
from tests.export.qat.samples import LABELS
from tests.export.qat.samples import config
from tests.export.qat.samples import convmixer

pytestmark = pytest.mark.peer

for package in ("tensorflow_model_optimization", "tf_keras"):
    if tuning.importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}", allow_module_level=True)


def tune(folder, settings, model=None, quantization="int8"):
    return fine_tune(
        model or convmixer(),
        folder,
        IMAGES,
        LABELS,
        settings,
        quantization=quantization,
        calibration_images=IMAGES,
    )


def export(path, model, quantization="int8"):
    export_tflite(
        model,
        path,
        quantization=quantization,
        calibration_images=IMAGES if quantization == "int8" else None,
        overwrite=True,
    )
    return LiteRTModel(path).predict(IMAGES)


@pytest.mark.parametrize(
    ("activation", "dim", "kernel_size", "quantization"),
    [("relu", 8, 3, "int8"), ("gelu", 16, 9, "int8"), ("gelu", 64, 3, "int4")],
)
def test_training_rounds_as_the_file_does(
    tmp_path, activation, dim, kernel_size, quantization
):
    model = convmixer(activation, dim, kernel_size)
    environment, modules = dict(os.environ), set(sys.modules)
    tuned, found = tune(tmp_path / "run", config(), model, quantization)
    assert dict(os.environ) == environment
    new = {name.partition(".")[0] for name in set(sys.modules) - modules}
    assert not new & {"tf_keras", "tensorflow_model_optimization"}
    assert found["parity"] < 1e-6
    expected = model.predict(IMAGES, verbose=0)
    file = export(tmp_path / "before.tflite", model, quantization)
    error = np.abs(file - expected).mean()
    rounded = probabilities(found["before"], "unknown")
    assert np.abs(rounded - file).mean() < 0.8 * error  # Independent: 1.4.
    assert np.abs(rounded - expected).mean() > 0.5 * error
    # After training too.
    expected = tuned.predict(IMAGES, verbose=0)
    file = export(tmp_path / "after.tflite", tuned, quantization)
    rounded = probabilities(found["after"], "unknown")
    assert np.abs(rounded - file).mean() < 4 * np.abs(file - expected).mean()


def test_training_lowers_the_loss_and_leaves_the_stem(tmp_path):
    model = convmixer()
    settings = config("float", epochs=30, learning_rate=0.01, save_every=500)
    tuned, found = tune(tmp_path, settings, model)
    before = deploy(model, "litert_int8")
    chosen = np.arange(len(IMAGES)), LABELS
    losses = [
        -np.log(x.predict(IMAGES, verbose=0)[chosen]).mean()
        for x in (before, tuned)
    ]
    assert losses[1] < 0.9 * losses[0]
    assert found["updates"] == 150
    assert found["loss"] < 0.95 * losses[0]
    old, new = graph.weights_of(before), graph.weights_of(tuned)
    np.testing.assert_array_equal(old["patch_embed"][0], new["patch_embed"][0])
    moved = [n for n in old if np.any(old[n][0] != new[n][0])]
    assert set(moved) == set(old) - {"patch_embed"}
    # The given model is unchanged.
    np.testing.assert_array_equal(
        deploy(model, "litert_int8").predict(IMAGES, verbose=0),
        before.predict(IMAGES, verbose=0),
    )


def test_int4_weights_train_to_the_file(tmp_path):
    settings = config(epochs=4, learning_rate=0.003)
    tuned, found = tune(tmp_path / "run", settings, quantization="int4")
    assert found["updates"] == 20
    outputs = export(tmp_path / "model.tflite", tuned, "int4")
    difference = np.abs(outputs - tuned.predict(IMAGES, verbose=0)).max()
    assert difference < 0.1


SCRIPT = """
import sys
from tests.export.qat import samples
from convmixer_tf.export.qat import fine_tune
settings = samples.config(epochs=30, seed=3)
fine_tune(samples.convmixer(), sys.argv[1], samples.IMAGES, samples.LABELS,
          settings, calibration_images=samples.IMAGES)
"""


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    settings = config(epochs=30, seed=3)
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, folder],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    checkpoints = folder / exchange.CHECKPOINTS
    deadline = time.monotonic() + 200
    while not list(checkpoints.glob("ckpt-2.index")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (folder / exchange.RESULT).exists()
    resumed, found = tune(folder, settings)
    expected, _ = tune(whole, settings)
    assert found["updates"] == 150
    weights, others = graph.weights_of(resumed), graph.weights_of(expected)
    for name in others:
        for left, right in zip(weights[name], others[name], strict=True):
            np.testing.assert_allclose(left, right, atol=1e-6)
    # A finished run needs no process.
    shutil.rmtree(checkpoints)
    again, _ = tune(folder, settings)
    assert not checkpoints.exists()
    np.testing.assert_array_equal(
        again.predict(IMAGES, verbose=0), resumed.predict(IMAGES, verbose=0)
    )


def test_a_keras_2_model_that_computes_something_else(tmp_path, monkeypatch):
    weights_of = graph.weights_of

    def wrong(model):
        weights = weights_of(model)
        weights["block_0_pointwise"][0] = weights["block_0_pointwise"][0] * 1.01
        return weights

    monkeypatch.setattr(tuning.graph, "weights_of", wrong)
    with pytest.raises(ValueError, match="in Keras 2 must equal the model's"):
        tune(tmp_path, config())
    assert not (tmp_path / exchange.CHECKPOINTS).exists()


def test_one_process_at_a_time_and_one_that_fails(tmp_path, monkeypatch):
    run = tuning._run_worker
    monkeypatch.setattr(tuning, "_run_worker", lambda folder: None)
    with pytest.raises(FileNotFoundError):  # The inputs were written.
        tune(tmp_path, config())
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="Another process uses"):
            run(tmp_path)
    (tmp_path / exchange.GRAPH).unlink()
    with pytest.raises(RuntimeError, match="ended with status 1"):
        run(tmp_path)
