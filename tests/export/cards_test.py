"""Tests that an artifact's card has the figures of its report."""

import dataclasses
import re

import keras
import pytest

from convmixer_tf.export import HubCard
from convmixer_tf.export import Limits
from convmixer_tf.export.cards import artifact_card
from convmixer_tf.export.verification.verify import Report
from convmixer_tf.model_card import ModelCard
from convmixer_tf.models import ConvMixer

REPORT = Report(
    artifact="/secret/model.onnx",
    runtime="onnxruntime 1.32",
    quantization="float32",
    size=12345,
    images=2000,
    labeled=1500,
    differences={
        "probabilities": {
            "max": 0.0123,
            "mean": 4.5e-5,
            "total_variation": 6.7e-5,
        },
        "logits": None,
    },
    agreement=0.9985,
    agreement_interval=(0.9957, 0.9995),
    accuracy_loss_interval=(-0.001, 0.003),
    classes_seen=3,
    accuracy={"model": 0.8765, "artifact": 0.8754},
    inputs=[
        {
            "name": "image",
            "shape": [None, 16, 16, 3],
            "dtype": "uint8",
            "scale": None,
            "zero_point": None,
        }
    ],
    outputs=[],
    operators={},
    custom_operators=[],
    delegation=None,
    limits=Limits(),
    broken={},
)


@pytest.fixture(scope="module")
def model():
    return ConvMixer(
        8, 1, 3, 4, input_shape=(16, None, 3), classes=3, name="toy"
    )


def test_the_figures_are_the_reports(model):
    text = artifact_card(
        model,
        "an ONNX file",
        REPORT,
        class_names=("ant", "bee", "cat"),
        trained_on="insects.",
        license="MIT",
        crop_fraction=0.875,
    ).text()
    assert text.startswith("# toy, an ONNX file\n")
    for part in (
        "height 16, width any,",
        "the central 0.875 of",
        "Tensors: image: ? x 16 x 16 x 3, uint8.",
        "probabilities of the classes, which add up to 1.",
        "ant, bee, cat.",
        "**Trained on**: insects.",
        "on 2,000 images, 1,500 of them labeled, in onnxruntime 1.32",
        "| number format | float32 |",
        "| size | 12,345 bytes |",
        "| top-1 accuracy | 87.54%, model 87.65% |",
        "| top-1 agreement | 99.85% |",
        "| its 95 % interval | 99.57% to 99.95% |",
        "| difference of probabilities | max 0.0123, mean 4.5e-05, "
        "total variation 6.7e-05 |",
        "**License of the weights**: MIT",
    ):
        assert part in text, part
    assert "secret" not in text
    assert "difference of logits" not in text


def test_without_a_report_there_is_no_figure(model):
    text = artifact_card(model, "an ONNX file", max_pixel=1).text()
    assert "**Measured**: not measured." in text
    assert "**Trained on**: not stated." in text
    assert "their names are not stated" in text
    assert "pixels in [0, 1]" in text
    assert "|" not in text
    assert not re.search(r"\d\s?%", text)


def test_images_without_labels(model):
    report = dataclasses.replace(
        REPORT, labeled=0, accuracy=None, agreement=None
    )
    text = artifact_card(model, "an ONNX file", report).text()
    assert "none of them labeled" in text
    assert "top-1" not in text


@pytest.mark.parametrize(
    ("activation", "words"),
    [
        ("sigmoid", "independent probabilities"),
        ("hard_sigmoid", "independent probabilities"),
        (None, "logits of the classes"),
        ("tanh", "a number for each class"),
    ],
)
def test_what_comes_out(activation, words):
    model = ConvMixer(
        8,
        1,
        3,
        4,
        input_shape=(16, 16, 3),
        classes=3,
        classifier_activation=activation,
    )
    assert words in artifact_card(model, "an ONNX file").text()
    body = keras.Model(model.input, model.get_layer("avg_pool").output)
    assert "features." in artifact_card(body, "an ONNX file").text()


def test_many_classes_are_counted():
    card = ModelCard("t", "a", "i", "o", class_names=tuple(map(str, range(99))))
    assert "**Classes**: 99, from 0 to 98." in card.text()


def test_cards_that_tf_hub_would_not_read():
    with pytest.raises(ValueError, match="must be publisher/name/version"):
        HubCard("mine")
    with pytest.raises(ValueError, match="Argument `dataset` must be one line"):
        HubCard("me/mine/1", dataset="two\nlines")
