"""Tests the fine-tuning script."""

import json

import pytest

from convmixer_tf import ConvMixer
from convmixer_tf.models import save_model
from convmixer_tf.models.additions import read_crop_fraction
from tests.helpers import run_script
from tests.helpers import write_images

CLASSES = ("blue", "green", "red")


@pytest.mark.large
def test_a_run_from_the_folder_of_another(tmp_path):
    """It stops at an unreadable image, and is resumed without it."""
    model = ConvMixer(8, 1, 3, 4, input_shape=(16, 16, 3), classes=2)
    (tmp_path / "source").mkdir()
    save_model(model, tmp_path / "source/model.keras", ("a", "b"), 0.75)
    images, output = tmp_path / "images", tmp_path / "run"
    write_images(images, CLASSES, 6, 16)
    broken = images / "red" / "broken.png"
    broken.touch()
    arguments = (
        *(f"--data={images}", f"--model={tmp_path / 'source'}"),
        *(f"--output={output}", "--frozen"),
    )
    result = run_script("recipes/finetune.py", *arguments)
    assert result.returncode == 1
    assert f"Unreadable image: {broken}. It is empty. Repair" in result.stderr
    assert "Traceback" not in result.stderr
    broken.unlink()
    output = tmp_path / "another"
    result = run_script("recipes/finetune.py", *arguments, f"--output={output}")
    assert result.returncode == 0, result.stderr[-3000:]
    assert "The head alone: top-1 " in result.stderr
    assert "of 4 validation images (95 % interval" in result.stderr
    assert "Kept: the model with a new head. Wrote " in result.stderr
    assert read_crop_fraction(output / "model.keras") == 0.75
    report = json.loads((output / "finetune.json").read_text())
    assert report["images"] == {"train": 14, "validation": 4}
