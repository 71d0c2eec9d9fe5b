"""Tests parts of `convmixer evaluate`."""

import importlib

import numpy as np
import pytest

from tests.helpers import script_forgotten


@pytest.fixture
def evaluate():
    """The module. Other modules have flags of the same names."""
    with script_forgotten("recipes/evaluate.py"):
        yield importlib.import_module("convmixer_tf.cli.evaluate")


def test_the_figures_lie_beside_the_model(evaluate, tmp_path):
    run, files = tmp_path / "run", tmp_path / "files"
    for folder in (run, files, run / "saved_model"):
        folder.mkdir()
    for path in (run / "model.keras", run / "config.json"):
        path.touch()
    for model, expected in (
        (run, run / "evaluation"),
        (f"{run}/", run / "evaluation"),
        (run / "model.keras", run / "evaluation"),
        (run / "a.tflite", run / "a.tflite_evaluation"),
        (run / "saved_model", run / "saved_model_evaluation"),
        (files / "model.keras", files / "model.keras_evaluation"),
    ):
        assert evaluate.output_folder(str(model)) == expected
    assert str(evaluate.output_folder("256_8")) == "runs/evaluation"


@pytest.mark.parametrize("classes", [2, 13])
def test_the_picture_of_confusions(evaluate, classes):
    confusion = np.full((classes, classes), 1500)
    confusion[1, 0] = 7
    names = [f"class {i}" for i in range(classes)]
    axes, _ = evaluate.draw_confusion(confusion, names, "a title").axes
    assert axes.get_title() == "a title"
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    shares = axes.images[0].get_array()
    assert shares[1, 0] == pytest.approx(7 / confusion[1].sum())
    counts = {text.get_position(): text.get_text() for text in axes.texts}
    if classes == 2:
        assert counts == {
            (0, 0): "1,500",
            (1, 0): "1,500",
            (0, 1): "7",
            (1, 1): "1,500",
        }
    else:
        assert not counts


def test_predictions_of_an_image_and_its_mirror_image(evaluate):
    images = np.random.default_rng(0).random((2, 3, 4, 1))

    def predict(images):
        return images[:, 0, :, 0]  # The upper row.

    predicted = evaluate.averaged_over_flips(predict)(images)
    row = images[:, 0, :, 0]
    np.testing.assert_allclose(predicted, (row + row[:, ::-1]) / 2)
