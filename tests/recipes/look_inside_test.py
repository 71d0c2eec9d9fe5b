"""Tests the recipes that look inside a model."""

import json

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from convmixer_tf import ConvMixer
from convmixer_tf import data
from tests.helpers import write_images


@pytest.fixture
def run(load_recipe):
    def run(name, *arguments):
        recipe = load_recipe(name)
        with flagsaver.flagsaver():
            recipe.main(flags.FLAGS([name, *map(str, arguments)]))
        return recipe

    return run


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.keras"
    ConvMixer(4, 2, 3, 4, input_shape=(16, 16, 3), classes=3).save(path)
    return path


@pytest.mark.slow
def test_look_inside(run, model, tmp_path, capsys):
    write_images(tmp_path / "data" / "test", "abc", 2, 20)
    output = tmp_path / "output"
    flags = [f"--model={model.parent}", f"--output={output}", "--split=test"]
    run("look_inside", *flags, f"--images={tmp_path / 'data'}")
    for path in output.glob("*.png"):
        assert len(np.unique(Image.open(path).convert("L"))) > 10
    printed = capsys.readouterr().out
    assert len(list(output.iterdir())) == 9
    assert {str(x) for x in output.iterdir()} == set(printed.splitlines()[-9:])
    assert (output / "costs.md").read_text() in printed
    total = json.loads((output / "costs.json").read_text())[-1]
    stem, block = 16 * 48 * 4, 16 * (9 * 4 + 16)
    assert total["macs"] == stem + 2 * block + 4 * 3

    # A folder without classes. Files are replaced only on request.
    images = tmp_path / "data" / "test" / "a"
    with pytest.raises(FileExistsError, match="pass `--overwrite`"):
        run("look_inside", *flags, f"--images={images}")
    with pytest.raises(ValueError, match="square"):
        run("look_inside", *flags, f"--images={images}", "--image_size=8")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model=256_8"], 1.0),
        (["--model=256_8", "--crop_fraction=0.5"], 0.5),
        (["--model=model.keras"], 0.96),
    ],
)
def test_look_inside_crops_as_in_evaluation(
    run, model, tmp_path, monkeypatch, arguments, expected
):
    class EnoughError(Exception):
        pass

    def read(*arguments, crop_fraction, **others):
        raise EnoughError(crop_fraction)

    monkeypatch.setattr(data, "read_images", read)
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "data" / "test", "abc", 2, 40)
    with pytest.raises(EnoughError) as received:
        run("look_inside", *arguments, "--images=data", "--split=test")
    assert received.value.args == (expected,)


@pytest.mark.slow
def test_segment(run, model, tmp_path, capsys):
    output = tmp_path / "output"
    flags = [f"--model={model.parent}", f"--output={output}", "--width=128"]
    run("segment", *flags, "--steps=10")
    found = json.loads((output / "segment.json").read_text())["recall"]
    assert len(found) == 3
    for recall in found.values():
        assert list(recall) == ["sky", "water", "trees", "tower", "mean"]
        # Even with random weights. Chance is a quarter.
        assert 0.4 < recall["mean"] <= 1
    assert len(np.unique(Image.open(output / "segment.png").convert("L"))) > 99
    assert "| patches and last block |" in capsys.readouterr().out
    with pytest.raises(FileExistsError, match="pass `--overwrite`"):
        run("segment", *flags)


def test_boxes_become_labels(load_recipe):
    segment = load_recipe("segment")
    boxes = [[(0, 0, 20, 10)], [(20, 10, 40, 20), (0, 10, 4, 20)]]
    labels = segment.rasterise(boxes, (40, 20), (2, 4))
    np.testing.assert_array_equal(labels, [[0, 0, -1, -1], [-1, -1, 1, 1]])
    with pytest.raises(
        ValueError, match=r"no patch center is in .* larger --width"
    ):
        segment.rasterise(boxes, (40, 20), (1, 1))


def test_no_box_to_test_on_touches_one_to_learn_from(load_recipe):
    pairs = load_recipe("segment").BOXES.values()
    learn, test = ([box for pair in pairs for box in pair[i]] for i in (0, 1))
    for a in learn:
        for b in test:
            apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
            assert apart, (a, b)
