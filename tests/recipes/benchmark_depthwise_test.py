"""The benchmark of the depthwise forms: its table, and one short run."""

import json

import keras
import pytest
from absl import flags
from absl.testing import flagsaver

from convmixer_tf.layers import depthwise_probe

pytest.importorskip("tensorflow")


@pytest.fixture
def benchmark(load_recipe, monkeypatch):
    recipe = load_recipe("benchmark_depthwise")
    monkeypatch.setattr(recipe, "LAYERS", {"256_8": (6, 4, 5)})
    return recipe


@pytest.fixture
def run(benchmark, monkeypatch):
    """Runs `main` with flags, as the command line would."""
    # No more than the test needs, and small.
    random = keras.random.normal
    monkeypatch.setattr(
        keras.random,
        "normal",
        lambda shape, seed: random(
            (64,) if len(shape) == 1 else [min(64, n) for n in shape], seed=seed
        ),
    )

    def main(*arguments):
        with flagsaver.flagsaver():
            flags.FLAGS(["benchmark", *arguments], known_only=True)
            benchmark.main(["benchmark"])

    return main


def test_table_sorts_by_time(benchmark):
    result = {
        "pass": "forward",
        "layer": "256_8",
        "dtype": "bfloat16",
        "batch_size": 4,
        "ms": {"native": 4.0, "rows": 20.0, "shifted": 2.0},
        "rounds_ms": {"native": [4.0], "shifted": [2.0]},
        "ms_of_a_copy": 1.0,
        "ms_of_products": 0.1,
    }
    start = "| 256_8 | forward | bfloat16 | 4 |"
    assert benchmark.table([result]).splitlines()[2:] == [
        f"{start} shifted | 2.000 | 0.50 | 0.50 | 0.050 |",
        f"{start} native | 4.000 | 1.00 | 0.25 | 0.025 |",
        f"{start} rows | 20.000 (once) | 5.00 | 0.05 | 0.005 |",
    ]


def test_short_run(run, tmp_path, capsys):
    path = tmp_path / "result.json"
    run(
        "--layer=256_8",
        "--pass=forward",
        "--pass=kernel_gradient",
        "--form=shifted",
        "--form=big_filter",
        "--form=pallas",
        "--batch_size=2",
        "--rounds=3",
        f"--output={path}",
    )
    content = json.loads(path.read_text())
    assert content["machine"]["device"][0] == "cpu"
    assert content["ceilings"]["bfloat16"]["flops"] > 0
    forward, gradient = content["results"]
    assert set(forward["ms"]) == {"native", "shifted"}
    assert set(gradient["ms"]) == {"native", "shifted", "big_filter"}
    assert "written for JAX" in forward["left_out"]["pallas"]
    assert all(len(ms) == 3 for ms in forward["rounds_ms"].values())
    printed = capsys.readouterr().out
    assert "without pallas: NotImplementedError: it is" in printed
    assert printed.count("| big_filter |") == 2  # At once, and in the end.


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--form=fast", "--form must be among .*Received: .'fast'"),
        ("--output=missing/folder.json", "There is no directory"),
        ("--output=table.txt", "must end in .json"),
    ],
)
def test_wrong_flags(run, argument, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match=message):
        run(argument)
    assert list(tmp_path.iterdir()) == []


def test_goes_on_and_leaves_the_probes_choice_to_others(
    run, benchmark, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("CONVMIXER_CACHE", str(tmp_path / "cache"))
    depthwise_probe.forget()
    path = tmp_path / "result.json"
    common = ("--layer=256_8", "--form=shifted", "--batch_size=2")
    common += ("--rounds=3", f"--output={path}", "--probe", "--resume")
    run(*common, "--pass=forward")
    (first,) = json.loads(path.read_text())["results"]
    (choice,) = json.loads(
        (tmp_path / "cache" / "depthwise.json").read_text()
    ).values()
    assert choice["form"] == first["probe"]["form"]
    with monkeypatch.context() as context:
        clock = iter([0.0, 61.0])
        context.setattr(benchmark.time, "monotonic", lambda: next(clock))
        run(*common, "--minutes=1")
    assert "minutes are over: go on with --resume" in capsys.readouterr().out
    run(*common, "--pass=forward", "--pass=kernel_gradient")
    again = json.loads(path.read_text())["results"]
    assert again[0] == first
    assert [result["pass"] for result in again] == [
        "forward",
        "kernel_gradient",
    ]
    content = json.loads(path.read_text())
    content["machine"]["device"] = ["gpu", "another"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"needs the device .*another"):
        run(*common)
