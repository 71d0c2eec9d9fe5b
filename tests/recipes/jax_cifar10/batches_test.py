"""Batches do not depend on who makes them, nor do their makers on JAX."""

import importlib

import numpy as np
import pytest


@pytest.fixture
def folder(tmp_path, pixels):
    np.save(tmp_path / "train_pixels.npy", pixels)
    np.save(tmp_path / "train_labels.npy", np.arange(len(pixels)) % 5)
    return tmp_path


def test_processes_make_the_same_batches(folder):
    module = importlib.import_module("jax_cifar10.batches")
    presets = importlib.import_module("jax_cifar10.presets")
    arguments = folder, (presets.read_preset("200").recipe, 5, 16, 0), 4
    with module.Batches(*arguments, workers=0) as batches:
        expected = list(batches.between(0, 12))
    with module.Batches(*arguments, workers=2) as batches:
        for first in (0, 7):
            found = list(batches.between(first, 12))
            assert len(found) == 12 - first
            for actual, peer in zip(found, expected[first:], strict=True):
                for left, right in zip(actual, peer, strict=True):
                    np.testing.assert_array_equal(left, right)
        code = "sorted(__import__('sys').modules)"
        modules = set(batches._executor.submit(eval, code).result())
    assert "jax_cifar10.augmentation" in modules
    assert not {"jax", "keras", "tensorflow", "convmixer_tf"} & modules
