"""The benchmark: its arithmetic, and one short run against timm."""

import json
import math
import pathlib

import pytest

from tests.helpers import run_python
from tests.peers import import_timm

RECIPE = pathlib.Path(__file__).parents[2] / "recipes" / "benchmark.py"


@pytest.fixture
def benchmark(load_recipe):
    return load_recipe("benchmark")


def test_contestants_take_turns_after_the_warm_up(benchmark):
    log, now = [], [0.0]

    def step(name, seconds):
        def run():
            log.append(name)
            now[0] += seconds

        return run

    steps = {"ours": step("ours", 1), "timm NCHW": step("timm", 2)}
    seconds = benchmark.take_turns(steps, 3, 2, lambda: now[0])
    assert log == ["ours"] * 2 + ["timm"] * 2 + ["ours", "timm"] * 3
    assert seconds == {"ours": [1] * 3, "timm NCHW": [2] * 3}


@pytest.fixture
def summary(benchmark):
    case = benchmark.Case("256_8", "train", "float32", 2)
    seconds = {
        "ours": [1.0, 2.0, 9.0, 2.0, 2.0],
        "timm NCHW": [5.0, 8.0, 6.0, 8.0, 8.0],
        "timm NHWC": [4.0, 4.0, 3.0, 5.0, 4.0],
    }
    return benchmark.summarise(case, seconds)


def test_ratio_is_that_of_medians_with_timms_best(summary):
    assert summary["timm_best"] == "timm NHWC"
    assert summary["ratio"] == 2 / 4
    assert summary["ms_per_image"] == {
        "ours": 1000,
        "timm NCHW": 4000,
        "timm NHWC": 2000,
    }
    # Round by round: 0.25, 0.4, 0.5, 0.5, 3.
    assert summary["ratio_quartiles"] == pytest.approx([0.4, 0.5])
    assert summary["all_ms_per_image"]["ours"][2] == 4500


def test_table_has_a_line_for_each_case(benchmark, summary):
    lines = benchmark.table([summary, summary]).splitlines()
    assert len(lines) == 4
    assert lines[3] == (
        "| 256_8 | train | float32 | 2 | 1000.00 | 2000.00 (NHWC) | 0.50 "
        "| 0.40 to 0.50 |"
    )


def test_cpu_is_read_from_its_file(benchmark, tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("model name\t: Zen 5\nbugs\t:\n\nmodel name\t: other\n")
    assert benchmark.cpu(str(path)) == {"model name": "Zen 5"}
    assert benchmark.cpu(str(tmp_path / "missing")) == {}


PATHS = {"recipe": str(RECIPE), "folder": str(RECIPE.parent)}
RUN = """
import runpy, sys

sys.path.insert(0, {folder!r})
from tests.peers import import_timm

import_timm()
sys.argv[0] = {recipe!r}
runpy.run_path({recipe!r}, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output=missing/folder.json"], "There is no directory"),
        (["--output=table.txt"], "must end in .json"),
        (["--rounds=2"], "rounds"),
        (["surplus"], "Unexpected arguments"),
    ],
)
def test_wrong_flags_end_it_at_once(arguments, message, tmp_path, monkeypatch):
    code = RUN.replace("from tests.peers import import_timm", "")
    code = code.replace("import_timm()", "").format(**PATHS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match=message):
        run_python(code, *arguments, PYTHONPATH=str(RECIPE.parents[1]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.peer
def test_short_run_against_timm(tmp_path):
    import_timm()
    path = tmp_path / "result.json"
    printed = run_python(
        RUN.format(**PATHS),
        "--model=256_8",
        "--batch_size=1",
        "--rounds=3",
        "--warmup=1",
        f"--output={path}",
    )
    content = json.loads(path.read_text())
    assert content["machine"]["threads"] == 1
    cases = [(r["step"], r["dtype"]) for r in content["results"]]
    assert cases == [
        ("train", "float32"),
        ("train", "bfloat16"),
        ("infer", "float32"),
        ("infer", "bfloat16"),
    ]
    for result in content["results"]:
        assert set(result["ms_per_image"]) == {
            "ours",
            "timm NCHW",
            "timm NHWC",
        }
        assert all(len(t) == 3 for t in result["all_ms_per_image"].values())
        assert f"{result['ratio']:.2f}" in printed


@pytest.mark.peer
@pytest.mark.parametrize("name", ["256_8", "1024_20"])
def test_both_are_the_same_model(benchmark, name):
    import_timm()
    case = benchmark.Case(name, "train", "float32", 1)
    weights = benchmark.our_model(case).trainable_weights
    theirs = benchmark.timm_model(case, channels_last=False)
    assert sum(math.prod(weight.shape) for weight in weights) == sum(
        parameter.numel() for parameter in theirs.parameters()
    )
