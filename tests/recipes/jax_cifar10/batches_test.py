"""Batches do not depend on who makes them, nor do their makers on JAX."""

import concurrent.futures
import importlib
import os
import signal

import numpy as np
import pytest


@pytest.fixture
def folder(tmp_path, pixels):
    np.save(tmp_path / "train_pixels.npy", pixels)
    np.save(tmp_path / "train_labels.npy", np.arange(len(pixels)) % 5)
    return tmp_path


def in_both_workers(batches, code):
    """Evaluates code in two processes, and returns their numbers."""
    wait = "__import__('time').sleep(0.1), __import__('os').getpid()"
    seen = set()
    while len(seen) < 2:
        code_and_wait = [f"({code}, {wait})"] * 4
        seen |= {x[-1] for x in batches._executor.map(eval, code_and_wait)}
    return seen


def test_processes_make_the_same_batches(folder):
    module = importlib.import_module("jax_cifar10.batches")
    presets = importlib.import_module("jax_cifar10.presets")
    arguments = folder, (presets.read_preset("200").recipe, 5, 16, 0), 4
    with module.Batches(*arguments, workers=0) as batches:
        expected = list(batches.between(0, 12))
    with module.Batches(*arguments, workers=2) as batches:
        for worker in in_both_workers(batches, "None"):
            os.kill(worker, signal.SIGTERM)  # That is for the run alone.
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


def test_a_lost_worker_ends_the_others(folder):
    module = importlib.import_module("jax_cifar10.batches")
    presets = importlib.import_module("jax_cifar10.presets")
    settings = presets.read_preset("200").recipe, 5, 16, 0
    with module.Batches(folder, settings, 4, workers=2) as batches:
        # Instead of a minute later.
        module_there = "__import__('jax_cifar10.batches').batches"
        in_both_workers(batches, f"setattr({module_there}, '_GRACE', 0.1)")
        os.kill(next(iter(batches._executor._processes)), signal.SIGKILL)
        with pytest.raises(concurrent.futures.process.BrokenProcessPool):
            list(batches.between(0, 12))
