import importlib
import types

import numpy as np
import pytest

from convmixer_tf.training.schedule import piecewise_linear


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 5, 7, 25, 100])
def test_equals_the_other_recipe(epochs):
    schedule = importlib.import_module("jax_cifar10.schedule")
    config = types.SimpleNamespace(
        epochs=epochs, learning_rate=0.05, steps_per_epoch=13
    )
    steps = np.arange(epochs * 13 + 2)
    expected = piecewise_linear(steps, 0.05, epochs, 13)
    actual = [schedule.learning_rate(int(step), config) for step in steps]
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=1e-8)
