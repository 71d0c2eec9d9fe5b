"""Tests parts of the recipe. training_recipes_test.py runs it."""

import pytest
from absl import flags


def test_starting_weights_are_not_needed_to_go_on(load_recipe, tmp_path):
    recipe = load_recipe("train_cifar10")
    arguments = ("--dim=8", "--depth=1", "--weights=/no/where.keras")
    flags.FLAGS(["train_cifar10.py", *arguments, f"--output={tmp_path}"])
    with pytest.raises(ValueError, match=r"/no/where\.keras"):
        recipe.make_model(3)
    checkpoint = tmp_path / "checkpoints" / "step_0000000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "info.json").touch()
    assert recipe.make_model(3, "softmax").output_shape == (None, 3)
