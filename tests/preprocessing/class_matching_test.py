"""Tests matching a model's outputs with the data's classes."""

import pytest

from convmixer_tf.preprocessing import match_classes
from convmixer_tf.preprocessing.imagenet import imagenet_classes

IDENTIFIERS = [c.wnid for c in imagenet_classes()]


def test_by_name():
    assert match_classes(
        ("red", "blue"), ("blue", "green", "red"), 3
    ).tolist() == [2, 0]


def test_by_order_if_no_names_are_known():
    assert match_classes(("red", "blue"), None, 2).tolist() == [0, 1]
    with pytest.raises(ValueError, match="3 classes and the data has 2"):
        match_classes(("red", "blue"), None, 3)


@pytest.mark.parametrize("known", [None, [c.name for c in imagenet_classes()]])
def test_imagenet_by_its_identifiers(known):
    data = (IDENTIFIERS[7], IDENTIFIERS[999])
    assert match_classes(data, known, 1000).tolist() == [7, 999]


def test_unknown_classes():
    with pytest.raises(ValueError, match="does not know the classes pink of"):
        match_classes(("pink", "red"), ("blue", "green", "red"), 3)
    with pytest.raises(ValueError, match="1000 classes and the data has 1"):
        match_classes(("pink",), None, 1000)


def test_a_name_of_several_classes():
    """ImageNet has two cranes: a bird and a machine."""
    names = ("crane", "cat", "crane")
    assert match_classes(names, names, 3).tolist() == [0, 1, 2]
    assert match_classes(("cat",), names, 3).tolist() == [1]
    with pytest.raises(ValueError, match="several classes named crane"):
        match_classes(("cat", "crane"), names, 3)
