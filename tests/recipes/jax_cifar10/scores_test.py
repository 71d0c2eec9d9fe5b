import importlib

import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.training import Tally
from convmixer_tf.training.evaluation import judge


@pytest.mark.parametrize("scale", [0.5, 2.0, 60.0])
def test_equals_the_other_recipe(scale):
    scores = importlib.import_module("jax_cifar10.scores")
    random = np.random.default_rng(0)
    # Rounded, so that classes score the same.
    logits = np.round(scale * random.normal(size=(500, 10))).astype("float32")
    labels = random.integers(0, 10, 500)
    tally = Tally(10)
    judged = judge(tf.constant(labels), tf.constant(logits))
    tally.add(np.ones(500), *(x.numpy() for x in judged))
    expected = tally.scores()
    actual = scores.score(labels, logits)
    assert actual["top1"] == expected.top1
    assert actual["top5"] == expected.top5
    assert actual["loss"] == pytest.approx(expected.loss, rel=1e-6)
    constant = scores.score(labels, np.zeros_like(logits))
    assert constant["top1"] == np.mean(labels == 0)
    assert scores.score(labels, np.full_like(logits, np.nan))["top5"] == 0
