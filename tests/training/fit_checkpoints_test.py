"""Tests that `model.fit` resumes after a kill."""

import os
import random
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf import ConvMixer
from convmixer_tf import data
from convmixer_tf.training import FitCheckpoints
from tests.helpers import ROOT

EPOCHS, STEPS = 3, 4


class Kill(keras.callbacks.Callback):
    """Ends the process or the fit before a batch."""

    def __init__(self, at, with_signal=False):
        super().__init__()
        self.left, self.with_signal = at, with_signal

    def on_train_batch_begin(self, batch, logs=None):
        if self.left == 0:
            if self.with_signal:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt
        self.left -= 1


def fit(model, folder, batches_of, callbacks):
    """Trains as in the docstring; returns the complete state."""
    checkpoints = FitCheckpoints(model, folder, save_every=3)
    for epoch, skip_steps in checkpoints.epochs(EPOCHS):
        model.fit(
            batches_of(epoch, skip_steps),
            initial_epoch=epoch,
            epochs=epoch + 1,
            callbacks=[checkpoints, *callbacks],
            shuffle=False,
            verbose=0,
        )
    return [np.asarray(x) for x in model.variables]


def fit_dense(folder, *callbacks):
    """A model with dropout, on batches that depend on the epoch."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dropout(0.5), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((5,)), *layers])
    model.compile("adam", "mse")

    def batches_of(epoch, skip_steps):
        x = np.random.default_rng(epoch).normal(size=(STEPS, 8, 5))[skip_steps:]
        pairs = tf.data.Dataset.from_tensor_slices((x, x[..., :2]))
        return pairs

    return fit(model, folder, batches_of, callbacks)


def fit_convmixer(folder, *callbacks):
    keras.utils.set_random_seed(0)
    model = ConvMixer(
        *(8, 1, 3, 4), input_shape=(16, 16, 3), classes=10, dropout=0.2
    )
    model.compile(keras.optimizers.AdamW(0.01), "categorical_crossentropy")
    dataset = data.hold_out(data.open_dataset("digits", "test"), 64)[1]

    def batches_of(epoch, skip_steps):
        return data.train_batches(
            *(dataset, data.get_augmentation("light"), 16, 64 // STEPS),
            seed=0,
            epoch=epoch,
            skip_steps=skip_steps,
        )

    return fit(model, folder, batches_of, callbacks)


def test_an_interrupted_fit_goes_on_to_the_bit(tmp_path):
    expected = fit_dense(tmp_path / "whole")
    for at in (5, 3):
        with pytest.raises(KeyboardInterrupt):
            fit_dense(tmp_path / "killed", Kill(at))
    weights = fit_dense(tmp_path / "killed")
    for actual, value in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(actual, value)
    # The run is finished: nothing is trained again.
    again = fit_dense(tmp_path / "killed", Kill(0))
    np.testing.assert_array_equal(again[0], expected[0])


def test_wrong_use(tmp_path):
    model = ConvMixer(8, 1, 3, 4, input_shape=(16, 16, 3), classes=10)
    with pytest.raises(ValueError, match=r"call `model\.compile` first"):
        FitCheckpoints(model, tmp_path)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="`save_every` must be a positive"):
        FitCheckpoints(model, tmp_path, save_every=0)
    epochs = FitCheckpoints(model, tmp_path).epochs(2)
    assert next(epochs) == (0, 0)
    with pytest.raises(RuntimeError, match="Pass this object"):
        next(epochs)


CODE = """
import sys

import numpy as np

from tests.training import fit_checkpoints_test as test

at = int(sys.argv[2])
weights = test.fit_convmixer(sys.argv[1], test.Kill(at, with_signal=True))
np.savez(sys.argv[1] + ".npz", *weights)
"""


@pytest.mark.large
def test_a_fit_killed_at_five_random_steps(tmp_path):
    def run(name, at):
        return subprocess.run(
            [sys.executable, "-c", CODE, tmp_path / name, str(at)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        ).returncode

    kills = [random.SystemRandom().randrange(5) for _ in range(5)]
    print("killed after", kills)
    assert run("whole", -1) == 0
    done = 0
    for at in kills:
        code = run("killed", at)
        done += code == 0
        assert code in (0, -signal.SIGKILL)
    assert done < 5
    assert run("killed", -1) == 0
    whole, killed = (
        dict(np.load(tmp_path / f"{name}.npz")) for name in ("whole", "killed")
    )
    assert len(whole) > 10
    for name, value in whole.items():
        np.testing.assert_array_equal(killed[name], value)
