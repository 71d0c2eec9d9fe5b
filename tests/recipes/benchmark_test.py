"""Tests the benchmark: command line, statistics, short runs."""

import json
import math
import os
import pathlib

import pytest
from absl import flags

from tests.helpers import ROOT
from tests.peers import import_timm

TWO = ("ours", "timm")
CASE = {"step": "infer", "dtype": "float32", "batch_size": 2}


@pytest.fixture
def benchmark(load_recipe):
    return load_recipe("benchmark")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output=missing/folder.json"], "does not exist"),
        (["--output=table.txt"], "must end in .json"),
        (["--output=there.json"], "there.json` exists"),
        (["--rounds=2"], "rounds"),
        (["--steps_a_turn=0"], "steps_a_turn"),
        (["surplus"], "Unexpected arguments"),
        (["--batch_size=0"], "batch_size"),
        (["--implementation=theirs"], "implementation"),
        (["--device=gpu", "--clock=cpu"], "does not measure GPU time"),
        (["--against=.", "--device=cpu"], "must be a checkout, .* '.'"),
    ],
)
def test_wrong_flags_end_it_at_once(
    benchmark, arguments, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("there.json").write_text("{}")
    with pytest.raises(Exception, match=message):  # noqa: PT012
        rest = flags.FLAGS(["benchmark.py", *arguments])
        benchmark.main(rest)
    assert [path.name for path in tmp_path.iterdir()] == ["there.json"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["ours", "timm", "timm_nhwc"]),
        ([f"--against={ROOT}"], ["ours", "against"]),
        (
            [f"--against={ROOT}", *(f"--implementation={x}" for x in TWO)],
            ["ours", "against", "timm"],
        ),
    ],
)
def test_what_is_timed(benchmark, arguments, expected):
    flags.FLAGS(["benchmark.py", "--device=cpu", *arguments])
    assert benchmark.implementations() == expected
    settings = benchmark.read_settings()
    assert (settings.threads, settings.steps_a_turn) == (1, 1)


def test_a_gpu_has_several_steps_a_turn_and_its_own_threads(benchmark):
    flags.FLAGS(["benchmark.py", "--device=gpu"])
    settings = benchmark.read_settings()
    assert (settings.threads, settings.steps_a_turn) == (None, 10)
    assert "CUDA_VISIBLE_DEVICES" not in set(
        benchmark.environment("ours", settings)
    ) - set(os.environ)


class FakeWorker:
    """Takes 1, 2, 3 ... times `seconds` per step."""

    def __init__(self, module, log, name, seconds, fail_after=99):
        self.error, self.log, self.name = module.WorkerError, log, name
        self.seconds, self.fail_after, self.turn = seconds, fail_after, 0

    def ask(self, method, **arguments):
        if method == "build":
            return 1.5
        self.log.append(self.name)
        if self.turn > self.fail_after:
            raise self.error("out of memory")
        self.turn += 1
        return self.turn * self.seconds


def test_rounds_alternate_and_a_failure_stops_one_only(benchmark):
    log = []
    workers = {
        "ours": FakeWorker(benchmark, log, "ours", 1e-3),
        "timm": FakeWorker(benchmark, log, "timm", 2e-3),
        "bad": FakeWorker(benchmark, log, "bad", 1, fail_after=1),
    }
    settings = benchmark.Settings("cpu", 1, "wall", 4, 1)
    result = benchmark.measure(workers, CASE, settings)
    # A warm-up step, then the rounds.
    assert log[:3] == log[3:6] == ["ours", "timm", "bad"]
    assert log[6:9] == ["bad", "timm", "ours"]
    assert log[9:] == ["ours", "timm", "timm", "ours"]
    times = result["milliseconds_an_image"]
    assert set(times) == {"ours", "timm"}
    assert times["ours"] == pytest.approx([1, 1.5, 2, 2.5])
    assert times["timm"] == pytest.approx([2, 3, 4, 5])
    assert result["failed"] == {"bad": "out of memory"}
    summary = benchmark.summarize(times, "ours")
    assert summary["ours"]["milliseconds_an_image"] == pytest.approx(1.75)
    assert "ratio" not in summary["ours"]
    assert summary["timm"]["ratio"] == pytest.approx(0.5)
    assert summary["timm"]["ratio_quartiles"] == pytest.approx([0.5, 0.5])
    row = {"model": "m", **CASE, **result, "summary": summary}
    lines = benchmark.table([row]).splitlines()
    assert (
        "| m | infer | float32 | 2 | ours | 1.75 (1.375 to 2.125)" in lines[2]
    )
    assert lines[3].endswith("| 286 | 0.500 (0.500 to 0.500) |")
    assert lines[4].endswith("| bad | out of memory | - | - |")


def test_without_the_reference_there_is_no_ratio(benchmark):
    summary = benchmark.summarize({"timm": [1, 2, 3], "b": [1, 2, 3]}, "ours")
    assert not any("ratio" in row for row in summary.values())


@pytest.mark.parametrize("name", ["256_8", "1024_20"])
def test_what_is_timed_is_the_published_model(benchmark, load_recipe, name):
    from convmixer_tf import models

    worker = load_recipe("benchmark_worker")
    framework = worker.KerasFramework(threads=None, compiled=False)
    built = []
    framework.convmixer_tf = FakePackage(built)
    with pytest.raises(StopIteration):
        framework.build(benchmark.MODELS[name], **CASE)
    ours = models.ConvMixer(*built[0], **built[1])
    published = getattr(models, f"ConvMixer{name}")(weights=None)
    assert ours.count_params() == published.count_params()
    assert ours.input_shape[1:] == published.input_shape[1:]


class FakePackage:
    """Records the arguments of a model and stops there."""

    def __init__(self, built):
        self.built = built

    def ConvMixer(self, *arguments, **options):
        self.built += [arguments, options]
        raise StopIteration


# Another process must import timm like `import_timm`.
CUSTOMIZE = """
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "timm":
            sys.meta_path.remove(self)
            from tests.peers import import_timm
            import_timm()

sys.meta_path.insert(0, Finder())
"""


@pytest.fixture
def run_benchmark(run_recipe, tmp_path, monkeypatch):
    def run(*arguments):
        path = tmp_path / "result.json"
        code, printed, log = run_recipe(
            *("benchmark.py", "--device=cpu", "--model=16_2", "--rounds=3"),
            *("--batch_size=2", f"--output={path}", *arguments),
        )
        assert code == 0, log[-4000:]
        content = json.loads(path.read_text())
        for result in content["results"]:
            assert not result["failed"]
            for name, row in result["summary"].items():
                assert 0 < row["milliseconds_an_image"] < math.inf
                assert f"| {name} |" in printed
        return content

    return run


@pytest.mark.large
def test_another_checkout_takes_turns_with_this_one(run_benchmark, tmp_path):
    # Only the package, with a change that identifies it.
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "convmixer_tf").symlink_to(ROOT / "convmixer_tf")
    content = run_benchmark(f"--against={tmp_path / 'other'}")
    assert list(content["implementations"]) == ["ours", "against"]
    assert [x["step"] for x in content["results"]] == ["infer", "train"]
    for result in content["results"]:
        assert len(result["milliseconds_an_image"]["against"]) == 3
        assert result["summary"]["against"]["ratio"] > 0
    assert content["settings"]["threads"] == 1
    assert content["machine"]["cores"] == os.cpu_count()


@pytest.mark.peer
def test_short_run_against_timm(run_benchmark, tmp_path, monkeypatch):
    import_timm()
    (tmp_path / "sitecustomize.py").write_text(CUSTOMIZE)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    monkeypatch.setenv("PYTHONPATH", path)
    content = run_benchmark("--dtype=bfloat16", "--clock=cpu")
    for result in content["results"]:
        assert set(result["summary"]) == {"ours", "timm", "timm_nhwc"}


@pytest.mark.peer
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_short_runs_on_other_backends(run_benchmark, monkeypatch, backend):
    pytest.importorskip(backend)
    monkeypatch.setenv("KERAS_BACKEND", backend)
    content = run_benchmark("--implementation=ours")
    assert content["implementations"]["ours"]["backend"] == backend
    assert len(content["results"]) == 2


@pytest.mark.peer
@pytest.mark.parametrize("name", ["256_8", "512_16", "768_32", "1024_20"])
def test_timm_has_the_same_parameters(benchmark, load_recipe, name):
    import_timm()
    import torch

    from convmixer_tf import models

    worker = load_recipe("benchmark_worker")
    framework = worker.TimmFramework(
        threads=None, compiled=False, channels_last=True
    )
    infer = framework.build(benchmark.MODELS[name], **CASE)
    network = next(
        cell.cell_contents
        for cell in infer.__wrapped__.__closure__
        if isinstance(cell.cell_contents, torch.nn.Module)
    )
    published = getattr(models, f"ConvMixer{name}")(weights=None)
    assert sum(
        math.prod(weight.shape) for weight in published.trainable_weights
    ) == sum(parameter.numel() for parameter in network.parameters())
    activations = {type(module).__name__ for module in network.modules()}
    assert activations & {"ReLU", "GELU"} == (
        {"ReLU"} if name == "768_32" else {"GELU"}
    )
