"""The sweep: its models, its checks, its table, a tiny run."""

import json
import pathlib

import pytest
from absl import flags

from convmixer_tf.analysis import count_macs

RECIPES = pathlib.Path(__file__).parents[2] / "recipes"
ROWS = json.loads((RECIPES / "results" / "sweep.json").read_text())["rows"]
BASE = {"dim": 64, "depth": 4, "kernel_size": 5, "patch_size": 2}


@pytest.fixture
def sweep(load_recipe):
    return load_recipe("sweep")


def trends(sweep, *arguments):
    flags.FLAGS(["sweep.py", *arguments])
    return sweep.trends()


def test_each_trend_changes_one_thing(sweep):
    found = trends(sweep, "--trends=depth,kernel_size", "--depths=8,1,8")
    assert list(found) == ["depth", "kernel_size"]
    assert found["depth"] == [{**BASE, "depth": d} for d in (1, 4, 8)]
    assert found["kernel_size"] == [
        {**BASE, "kernel_size": k} for k in (3, 5, 9, 16)
    ]


def test_a_model_of_several_trends_is_trained_once(sweep):
    flags.FLAGS(["sweep.py", "--data=digits"])
    contest = sweep.contests.open_contest()
    models = [model for trend in sweep.trends().values() for model in trend]
    found = sweep.contestants(contest, models)
    assert len(models) == 13
    assert len({contestant.name for contestant in found}) == len(found) == 10
    assert found[0].name == "convmixer_64_4_k5_p2"
    assert found[0].settings == BASE
    model = found[0].build(None)
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, 10)
    assert model.get_layer("block_3").depthwise.kernel.shape[0] == 5


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--trends=width", "--trends takes some of patch_size, .*width"),
        ("--trends=", "Received: nothing"),
        ("--depths=2,x", "--depths must be positive integers .*: 2,x"),
        ("--dims=0", "--dims must be positive"),
        ("--patch_sizes=3", "must divide the images, of 32 pixels"),
        ("--kernel_sizes=33", "at most 31: .* a kernel of 33 on patches of 2"),
        ("--patch_sizes=16", "at most 3: .* a kernel of 5 on patches of 16"),
    ],
)
def test_wrong_flags(sweep, argument, message):
    with pytest.raises(ValueError, match=message):
        trends(sweep, argument)


def test_committed_table_and_picture(sweep, tmp_path):
    assert {row["trend"] for row in ROWS} == set(sweep.TRENDS)
    lines = sweep.table(ROWS).splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert f"{ROWS[-1]['top1']:.2%}" in lines[-1]
    sweep.draw(tmp_path / "picture.png", ROWS)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_committed_costs_are_those_of_the_models(sweep):
    flags.FLAGS(["sweep.py", "--data=digits"])
    contest = sweep.contests.open_contest()
    row = ROWS[0]
    model = {name: row[name] for name in BASE}
    (found,) = sweep.contestants(contest, [model])
    assert found.name == row["name"]
    assert count_macs(found.build(None)) == row["macs"]


@pytest.mark.large
def test_a_sweep_goes_on_with_another_trend(run_recipe, tmp_path):
    flags = (
        *("--data=digits", "--dim=8", "--depth=1", "--patch_size=4"),
        *("--kernel_sizes=3", "--depths=2", "--epochs=1", "--batch_size=16"),
        *("--steps_per_epoch=2", "--notensorboard", f"--output={tmp_path}"),
    )
    code, printed, log = run_recipe("sweep.py", *flags, "--trends=kernel_size")
    assert code == 0, log[-3000:]
    first = json.loads((tmp_path / "sweep.json").read_text())["rows"]
    assert [row["kernel_size"] for row in first] == [3, 5]
    code, printed, log = run_recipe(
        "sweep.py", *flags, "--trends=kernel_size,depth"
    )
    assert code == 0, log[-3000:]
    assert log.count("is at its end") == 2
    rows = json.loads((tmp_path / "sweep.json").read_text())["rows"]
    assert [(row["trend"], row[row["trend"]]) for row in rows] == [
        ("kernel_size", 3),
        ("kernel_size", 5),
        ("depth", 1),
        ("depth", 2),
    ]
    assert rows[:2] == first
    assert rows[2]["top1"] == first[1]["top1"]
    assert len(printed.splitlines()) == 2 + 4 + 1
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "sweep.csv").exists()
