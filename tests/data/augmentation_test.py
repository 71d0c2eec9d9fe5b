import pytest
import tensorflow as tf

from convmixer_tf.data import Augmentation
from convmixer_tf.data import RandAugment
from convmixer_tf.data import get_augmentation


def test_imagenet_recipe_is_the_authors():
    augmentation = get_augmentation("imagenet")
    assert augmentation.crop.min_area == 0.08
    assert augmentation.crop.interpolation == "random"
    assert augmentation.flip == 0.5
    assert augmentation.rand_augment == RandAugment.from_string(
        "rand-m9-mstd0.5-inc1"
    )
    assert (
        augmentation.mixing.mixup_alpha,
        augmentation.mixing.cutmix_alpha,
    ) == (0.5, 0.5)
    assert augmentation.mixing.mode == "batch"
    assert (augmentation.erasing.probability, augmentation.erasing.mode) == (
        0.25,
        "pixel",
    )
    assert augmentation.label_smoothing == 0.1
    assert augmentation.repeats == 1
    assert augmentation.color_jitter is None


def test_no_augmentation_takes_the_middle(photos):
    crop = get_augmentation("none").crop
    draws = tf.random.stateless_uniform([crop.num_draws], [0, 0])
    box = [int(x) for x in crop._box(427, 640, draws)]
    assert box == [0, 106, 427, 427]


def test_refuses_unknown_names():
    with pytest.raises(
        ValueError, match="must be one of 'imagenet', 'cifar10', 'light', 'k"
    ):
        get_augmentation("heavy")


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
        Augmentation(**{name: value})
