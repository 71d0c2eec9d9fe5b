"""Tests recipes/benchmark_data.py. tests/prose runs it with timm."""

import pytest
from absl import app
from absl import flags

from convmixer_tf.data import get_augmentation
from tests.helpers import write_images


def test_too_few_images_for_a_batch(load_recipe, tmp_path):
    recipe = load_recipe("benchmark_data")
    write_images(tmp_path / "train", ("a", "b"), 3, 8)
    flags.FLAGS(["benchmark_data.py", f"--data={tmp_path}"])
    with pytest.raises(app.UsageError, match="at least 64 images"):
        recipe.our_epochs(get_augmentation("none"))
