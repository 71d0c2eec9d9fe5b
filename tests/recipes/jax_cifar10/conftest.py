"""The parts of `train_cifar10_jax.py` as modules, and what they work on."""

import pathlib

import numpy as np
import pytest
from sklearn.datasets import load_sample_images

RECIPES = pathlib.Path(__file__).parents[3] / "recipes"


@pytest.fixture(autouse=True)
def _import_path(monkeypatch):
    monkeypatch.syspath_prepend(RECIPES)


@pytest.fixture(scope="session")
def pixels():
    """Parts of photographs, uint8 array of shape (64, 32, 32, 3)."""
    photos = load_sample_images().images
    random = np.random.default_rng(0)
    parts = []
    for index in range(64):
        top, left = random.integers(0, [427 - 96, 640 - 96])
        part = photos[index % 2][top : top + 96 : 3, left : left + 96 : 3]
        parts.append(part)
    return np.stack(parts)
