"""What a fine-tuning starts from."""

import json
import os

import pytest

from convmixer_tf import ConvMixer
from convmixer_tf.models import read_crop_fraction
from convmixer_tf.models import save_model
from tests.helpers import run_script
from tests.helpers import write_images

CLASSES = ("blue", "green", "red")


@pytest.fixture
def recipe(load_recipe):
    return load_recipe("finetune")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("source")
    model = ConvMixer(8, 1, 3, 4, input_shape=(16, 16, 3), classes=2)
    save_model(model, folder / "model.keras", ("a", "b"), 0.75)
    return str(folder)


def test_a_variant_comes_with_its_weights(recipe):
    origin = recipe.find_origin("256_8")
    assert (origin.name, origin.weights) == ("256_8", "cifar10")
    assert (origin.image_size, origin.crop_fraction) == (32, 1)
    other = recipe.find_origin("1024_20", "random")
    assert (other.weights, other.build.keywords) == (
        "random",
        {"weights": None},
    )
    assert (other.image_size, other.crop_fraction) == (224, 0.96)


def test_a_run_is_as_good_as_its_file(recipe, source):
    path = os.path.join(source, "model.keras")
    origin = recipe.find_origin(source)
    assert (origin.name, origin.weights) == (path, "its own")
    assert (origin.image_size, origin.crop_fraction) == (16, 0.75)
    again = recipe.find_origin(path)
    assert (again.name, again.crop_fraction) == (path, 0.75)
    given = recipe.find_origin(path, "imagenet")
    assert given.weights == "imagenet"
    assert given.build.keywords["weights"] == "imagenet"


def test_a_file_that_says_no_crop_gets_the_usual(recipe, tmp_path):
    path = tmp_path / "plain.keras"
    ConvMixer(8, 1, 3, 4, input_shape=(16, 16, 3), classes=2).save(path)
    assert recipe.find_origin(str(path)).crop_fraction == 0.96


@pytest.mark.large
def test_a_run_says_what_it_started_from(source, tmp_path):
    """It also stops at an unreadable image, and goes on without it."""
    images, output = tmp_path / "images", tmp_path / "run"
    write_images(images / "train", CLASSES, 4, 16)
    write_images(images / "validation", CLASSES, 2, 16)
    broken = images / "validation" / "red" / "broken.png"
    broken.touch()
    arguments = (
        *(f"--data={images}", f"--model={source}", f"--output={output}"),
        *("--epochs=1", "--batch_size=4", "--notensorboard"),
    )
    result = run_script("recipes/finetune.py", *arguments)
    assert result.returncode == 1
    assert f"Unreadable image: {broken}. Repair or" in result.stderr
    assert "Traceback" not in result.stderr
    broken.unlink()
    # As a run of before had it.
    config = json.loads((output / "config.json").read_text())
    assert (
        config.pop("starts_from") == f"{source}/model.keras (weights: its own)"
    )
    assert config.pop("crop_fraction") == 0.75
    (output / "config.json").write_text(json.dumps(config))
    result = run_script("recipes/finetune.py", *arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    assert (
        f"Starts from {source}/model.keras (weights: its own); new classifier "
        "for blue, green, red; 12 training and 6 evaluation images of 16 pixels"
    ) in result.stderr
    assert "Goes on from step 3 of 3" in result.stderr
    assert read_crop_fraction(output / "model.keras") == 0.75
