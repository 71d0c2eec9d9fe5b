"""Tests that a training run's card has the figures of its summary."""

import pytest

from convmixer_tf import ConvMixer
from convmixer_tf.model_card import kept_part
from convmixer_tf.model_card import run_card

LAST = {"epoch": 3, "top1": 0.75, "top5": 0.9, "loss": 0.5}


def card(classes=6, crop=1.0, **best):
    model = ConvMixer(8, 1, 3, 4, input_shape=(16, 16, 3), classes=classes)
    summary = {"last": LAST, "best": {**LAST, **best}}
    return run_card(model, summary, "abcdef"[:classes], 1200, 300, crop).text()


def test_the_figures_are_those_of_the_last_epoch():
    text = card()
    assert "on 300 evaluation images.\n" in text
    for row in (
        "| top-1 | 75.00% |",
        "| top-5 | 90.00% |",
        "| loss | 0.5000 |",
    ):
        assert row in text
    assert "`model.keras` is from the last" not in text


def test_a_better_epoch_is_named():
    text = card(epoch=2, top1=0.8)
    assert "| top-1 | 75.00% |" in text
    assert "Epoch 2 had the best top-1 accuracy,\n80.00%. `model.k" in text
    assert "`model.keras` is from the last epoch." in text


def test_the_best_five_of_five_are_left_out():
    assert "top-5" not in card(classes=5)
    assert "top-5" in card(classes=6)


@pytest.mark.parametrize(
    ("crop", "text"),
    [
        (1.0, "the whole shorter side"),
        (0.96, "the central 0.96 of the shorter side"),
    ],
)
def test_the_crop(crop, text):
    assert kept_part(crop) == text
    assert (
        f"images were cropped to\n{text}, resized (bicubic) and rotated by"
        in card(crop=crop)
    )
