"""Compares with timm itself. The other tests compare with Pillow."""

import random

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convmixer_tf.data import RandAugment
from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.data.rand_augment import _BRANCHES
from convmixer_tf.data.rand_augment import OPERATION_NAMES
from convmixer_tf.data.rand_augment import arguments
from tests.peers import import_timm

pytestmark = pytest.mark.peer

# Names that differ in timm.
THEIR_NAMES = {"TranslateX": "TranslateXRel", "TranslateY": "TranslateYRel"}
INCREASING = OPERATION_NAMES[3:5] + OPERATION_NAMES[6:10]


@pytest.fixture(scope="module")
def timm():
    return import_timm()


def test_operations_are_the_same(timm):
    from timm.data.auto_augment import rand_augment_transform

    theirs = rand_augment_transform("rand-m9-mstd0.5-inc1", {})
    assert theirs.num_layers == RandAugment().num_ops
    expected = {
        THEIR_NAMES.get(name, name)
        + ("Increasing" if name in INCREASING else "")
        for name in OPERATION_NAMES
    }
    assert {op.name for op in theirs.ops} == expected
    assert {op.prob for op in theirs.ops} == {RandAugment().probability}


@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("level", [1.0, 5.0, 9.0])
@pytest.mark.parametrize("index", range(15), ids=OPERATION_NAMES)
def test_operation_equals_timm(
    timm, small_photos, monkeypatch, index, level, sign, increasing
):
    from timm.data.auto_augment import AugmentOp

    name = OPERATION_NAMES[index]
    theirs = THEIR_NAMES.get(name, name)
    if increasing and name in INCREASING:
        theirs += "Increasing"
    # timm negates if this is above 1/2.
    monkeypatch.setattr(random, "random", lambda: 0.75 if sign < 0 else 0.25)
    operation = AugmentOp(
        theirs,
        prob=1.0,
        magnitude=level,
        hparams={
            "img_mean": (124, 116, 104),
            "interpolation": Image.Resampling.BICUBIC,
        },
    )
    if theirs.startswith("Posterize") and not operation.level_fn(level, {})[0]:
        # Pillow 13 rejects 0 bits.
        expected = np.zeros_like(small_photos)
    else:
        expected = [
            np.asarray(operation(Image.fromarray(x))) for x in small_photos
        ]
    value = arguments(
        tf.fill([4], level), tf.fill([4], float(sign)), increasing
    )[index]
    # The affine operations, from the tenth on, have two branches.
    branch = index if index < 10 else 2 * index - 9
    actual = _BRANCHES[branch](tf.constant(small_photos), value).numpy()
    error = np.abs(actual - np.array(expected, int))
    if index < 6:
        assert error.max() == 0
    elif index < 10:
        # The factor is a float32 here and a float64 there.
        assert error.max() <= 1
        assert error.mean() < 0.05
    else:
        assert error.mean() < 0.2


@pytest.mark.parametrize("size", [32, 224])
def test_evaluation_transform_equals_timm(timm, photos, size):
    from timm.data import create_transform

    transform = create_transform(
        size, interpolation="bicubic", crop_pct=0.96, use_prefetcher=True
    )
    for image in (photos[0], photos[1].swapaxes(0, 1)):
        expected = transform(Image.fromarray(image)).numpy()
        expected = expected.transpose(1, 2, 0)
        actual = resize_and_center_crop(image, size).numpy()
        error = np.abs(actual - expected.astype(int))
        assert error.mean() < 0.5
