import pytest
import tensorflow as tf

from convmixer_tf.data import RandAugment
from convmixer_tf.data import Recipe
from convmixer_tf.data import get_recipe


def test_imagenet_recipe_is_the_authors():
    recipe = get_recipe("imagenet")
    assert recipe.crop.min_area == 0.08
    assert recipe.crop.interpolation == "random"
    assert recipe.flip == 0.5
    assert recipe.rand_augment == RandAugment.from_string(
        "rand-m9-mstd0.5-inc1"
    )
    assert (recipe.mixing.mixup_alpha, recipe.mixing.cutmix_alpha) == (0.5, 0.5)
    assert recipe.mixing.mode == "batch"
    assert (recipe.erasing.probability, recipe.erasing.mode) == (0.25, "pixel")
    assert recipe.label_smoothing == 0.1
    assert recipe.repeats == 1
    assert recipe.color_jitter is None


def test_no_augmentation_takes_the_middle(photos):
    crop = get_recipe("none").crop
    draws = tf.random.stateless_uniform([crop.num_draws], [0, 0])
    box = [int(x) for x in crop._box(427, 640, draws)]
    assert box == [0, 106, 427, 427]


def test_refuses_unknown_names():
    with pytest.raises(
        ValueError, match="must be one of 'imagenet', 'cifar10', 'light', 'k"
    ):
        get_recipe("heavy")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("flip", 2.0, "`flip` must be from 0 to 1"),
        ("label_smoothing", -1.0, "`label_smoothing` must be from 0 to 1"),
        ("repeats", 0, "`repeats` must be a positive integer"),
    ],
)
def test_refuses_settings(name, value, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**{name: value})
