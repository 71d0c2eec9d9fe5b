"""Tests the statistics of the comparison of quantization-aware training."""

import pytest
from absl import flags
from absl.testing import flagsaver


@pytest.fixture
def recipe(load_recipe):
    return load_recipe("compare_qat")


def result(method, quantization, top1, seed=0):
    return {
        "method": method,
        "quantization": quantization,
        "seed": seed,
        "bytes": 12_345,
        "top1": top1,
        "agreement": 0.9,
    }


@pytest.fixture
def results():
    return [
        result(None, "int8", 0.80),
        result(None, "int4", 0.70),
        *(result("quantize", "int8", t) for t in (0.81, 0.83, 0.82)),
        *(result("float", "int8", t) for t in (0.81, 0.82, 0.815)),
        *(result("quantize", "int4", t) for t in (0.79, 0.80, 0.795)),
        *(result("float", "int4", t) for t in (0.70, 0.71, 0.705)),
    ]


def test_summary(recipe, results):
    rows = {
        (row["quantization"], row["method"]): row
        for row in recipe.summarize(results)
    }
    assert len(rows) == 4
    row = rows["int8", "quantize"]
    assert row["seeds"] == 3
    assert row["top1"] == pytest.approx(0.82)
    assert (row["least"], row["largest"]) == (0.81, 0.83)
    assert row["spread"] == pytest.approx(0.02)
    assert row["gain"] == pytest.approx(0.02)


def test_verdicts_need_more_than_the_spread(recipe, results):
    said = recipe.verdicts(recipe.summarize(results))
    assert len(said) == 4
    assert "int8: training with rounding does not beat the same tra" in said[1]
    assert "(+0.50 points, spread 2.00)" in said[1]
    assert "int4: training with rounding beats the file without tr" in said[2]
    assert "(+9.50 points, spread 1.00)" in said[2]
    assert "int4: training with rounding beats the same training w" in said[3]


def test_one_quantization_alone(recipe, results):
    int4 = [result for result in results if result["quantization"] == "int4"]
    said = recipe.verdicts(recipe.summarize(int4))
    assert len(said) == 2
    assert said[0].startswith("int4: ")


def test_table(recipe, results):
    lines = recipe.table(results).splitlines()
    assert len(lines) == len(results) + 2
    assert lines[2] == "| int8 | none | 0 | 12 | 80.00% | 90.00% |"


def test_trainings_of_the_flags(recipe):
    with flagsaver.flagsaver():
        command = ["compare_qat", "--seeds=2", "--model=m", "--data=d"]
        flags.FLAGS(command)
        found = recipe.trainings()
    assert len(found) == len(set(found)) == 8
    assert ("int4", "float", 1) in found


@pytest.mark.parametrize("flag", ["quantization", "scheme"])
def test_trainings_in_one_quantization(recipe, flag):
    with flagsaver.flagsaver():
        command = ["compare_qat", "--seeds=2", "--model=m", "--data=d"]
        flags.FLAGS([*command, f"--{flag}=int4"])
        assert recipe.trainings() == [
            ("int4", method, seed)
            for seed in (0, 1)
            for method in ("quantize", "float")
        ]
