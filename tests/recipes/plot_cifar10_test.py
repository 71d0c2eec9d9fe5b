"""The picture of learning curves."""

import pytest
from absl import flags


@pytest.fixture
def runs(tmp_path):
    """Two runs, of 3 and of 100 epochs."""
    for name, epochs in (("short", 3), ("long", 100)):
        (tmp_path / name).mkdir()
        lines = ["epoch,step,train_loss,loss,top1"]
        lines += [
            f"{e},{97 * e},{2 / e},{1.5 / e},{1 - 0.5 / e}"
            for e in range(1, epochs + 1)
        ]
        (tmp_path / name / "log.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "none").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "log.csv").write_text("epoch,top1\n")
    return tmp_path


@pytest.fixture
def recipe(load_recipe):
    return load_recipe("plot_cifar10")


def labels_of(figure):
    return [line.get_label() for line in figure.axes[0].lines]


def test_what_is_drawn(recipe, runs):
    logs = recipe.parse_runs([f"mine={runs / 'short'}"])
    figure = recipe.draw(logs, "On other images.")
    assert labels_of(figure) == [
        "mine: 83.33 % after 3",
        "authors' log, 25 epochs: 92.60 %",
    ]
    curve, mark = figure.axes[0].lines
    assert list(curve.get_xdata()) == [1, 2, 3]
    assert curve.get_ydata() == pytest.approx([50, 75, 250 / 3])
    assert (*mark.get_xdata(), *mark.get_ydata()) == (25, 92.6)
    assert "On other images." in figure.get_supxlabel()
    test, training = figure.axes[1].lines
    assert test.get_ydata() == pytest.approx([1.5, 0.75, 0.5])
    assert training.get_ydata() == pytest.approx([2, 1, 2 / 3])


def test_the_authors_long_run_stands_beside_a_long_one(recipe, runs):
    texts = [f"{name}={runs / name}" for name in ("short", "long")]
    labels = labels_of(recipe.draw(recipe.parse_runs(texts)))
    assert labels[-1] == "authors, 100 epochs: more than 94 %"
    assert len(labels) == 4


def test_runs_that_started_from_one_another(recipe, runs):
    short, long = runs / "short", runs / "long"
    logs = recipe.parse_runs([f"both={short},{long}", f"one={short}"])
    assert logs["both"]["epoch"] == list(range(1, 104))
    assert logs["both"]["top1"][2:4] == pytest.approx([5 / 6, 0.5])
    assert logs["one"]["epoch"] == [1, 2, 3]


def test_the_picture(recipe, runs):
    output = runs / "curves.png"
    line = ["plot", f"--run=a=b={runs / 'long'}", f"--output={output}"]
    recipe.main(flags.FLAGS([*line, "--verbosity=-1"]))
    assert output.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(FileExistsError, match="pass `--overwrite`"):
        recipe.main(["plot"])


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            "runs/mine",
            ValueError,
            r"=FOLDER\[,FOLDER ...\]. Received: runs/mine",
        ),
        ("=runs/mine", ValueError, "must be NAME=FOLDER"),
        ("x={runs}/none", FileNotFoundError, "writes it after its first epoch"),
        ("x={runs}/empty", ValueError, "has no epoch in it"),
    ],
)
def test_errors(recipe, runs, text, error, message):
    with pytest.raises(error, match=message):
        recipe.parse_runs([text.format(runs=runs)])
