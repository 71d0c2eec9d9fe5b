"""Tests the learning curves of runs."""

import math

import pytest


@pytest.fixture
def recipe(load_recipe):
    return load_recipe("curves")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "log.csv").write_text(
        "epoch,train_loss,loss,top1,images_per_second\n"
        "1,2,1.5,0.5,\n2,1.25,1,0.75,100\n3,1,1.25,0.625,100\n"
    )
    return folder


def test_what_is_unknown_is_no_number(recipe, folder):
    speeds = recipe.read_log(folder)["images_per_second"]
    assert math.isnan(speeds[0])
    assert speeds[1:] == [100, 100]


def test_the_curve_of_a_run(recipe, folder):
    figure = recipe.draw({"": recipe.read_log(folder)})
    accuracy, loss = figure.axes
    (curve,) = accuracy.lines
    assert curve.get_label() == "62.50 % after 3"
    assert list(curve.get_xdata()) == [1, 2, 3]
    assert list(curve.get_ydata()) == [50, 75, 62.5]
    losses = {line.get_label(): list(line.get_ydata()) for line in loss.lines}
    assert losses == {
        "evaluation": [1.5, 1, 1.25],
        "training, augmented": [2, 1.25, 1],
    }


def test_several_runs_are_told_apart(recipe, folder):
    log = recipe.read_log(folder)
    figure = recipe.draw({"a": log, "b": log})
    assert [line.get_label() for line in figure.axes[0].lines] == [
        "a: 62.50 % after 3",
        "b: 62.50 % after 3",
    ]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, FileNotFoundError, "writes it after its first epoch"),
        ("epoch,top1\n", ValueError, "has no epochs"),
    ],
)
def test_errors(recipe, tmp_path, content, error, message):
    if content:
        (tmp_path / "log.csv").write_text(content)
    with pytest.raises(error, match=message):
        recipe.read_log(tmp_path)


def test_the_picture(recipe, folder, monkeypatch):
    titles = []
    draw = recipe.draw

    def keep(logs):
        figure = draw(logs)
        monkeypatch.setattr(figure, "suptitle", titles.append)
        return figure

    monkeypatch.setattr(recipe, "draw", keep)
    path = recipe.draw_run(folder)
    assert path == str(folder / "curve.png")
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert titles == ["mine: 75.00 % at best, after epoch 2"]
