"""The benchmark's command line, and short runs against timm."""

import json
import math
import os
import pathlib
import sys
import time

import pytest
from absl import flags
from PIL import Image

from tests.helpers import ROOT
from tests.helpers import run_python
from tests.peers import import_timm

RECIPE = ROOT / "recipes" / "benchmark.py"
RUN = f"""
import runpy, sys

sys.argv[0] = {str(RECIPE)!r}
sys.path.insert(0, {str(RECIPE.parent)!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def benchmark(load_recipe):
    return load_recipe("benchmark")


@pytest.fixture
def set_flags(benchmark):
    def set_flags(*arguments):
        flags.FLAGS.unparse_flags()
        flags.FLAGS(["benchmark.py", *arguments])

    set_flags("--device=cpu")
    return set_flags


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output=missing/folder.json"], "There is no directory"),
        (["--output=table.txt"], "must end in .json"),
        (["--output=there.json"], "there.json` exists"),
        (["--rounds=2"], "rounds"),
        (["surplus"], "Unexpected arguments"),
        (["--batch_size=many"], "must be a positive integer or auto"),
        (["--batch_size=auto", "--batch_size=0"], "positive integer or auto"),
        (["--contestant=theirs"], "A contestant is ours, timm NCHW or"),
        (["--contestant=ours shfted"], "has the forms .* Received: 'shfted'"),
        (["--minutes=0"], "minutes"),
        (["--device=gpu", "--clock=cpu"], "does not see what a GPU does"),
    ],
)
def test_wrong_flags_end_it_at_once(
    benchmark, set_flags, arguments, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("there.json").write_text("{}")
    with pytest.raises(Exception, match=message):  # noqa: PT012
        set_flags(*[a for a in arguments if a.startswith("--")])
        rest = [a for a in arguments if not a.startswith("--")]
        benchmark.main(["benchmark.py", *rest])
    assert [path.name for path in tmp_path.iterdir()] == ["there.json"]


def test_a_cpu_has_one_thread_and_turns(benchmark, set_flags):
    settings, plan, names = benchmark.read_flags()
    assert (settings.device, settings.threads, plan.together) == ("cpu", 1, 1)
    assert (plan.sizes("1536_20"), plan.deadline) == ([2], math.inf)
    assert names == ["ours", "timm NCHW", "timm NHWC"]
    set_flags("--threads=3", "--batch_size=auto", "--minutes=1")
    settings, plan, _ = benchmark.read_flags()
    assert settings.threads == 3
    assert plan.sizes("256_8")[:3] == [64, 128, 256]
    assert 50 < plan.deadline - time.monotonic() <= 60


def test_a_gpu_has_all_its_memory_for_each(benchmark, set_flags):
    set_flags("--device=gpu")
    settings, plan, names = benchmark.read_flags()
    assert (settings.threads, plan.together, plan.search) == (None, False, True)
    assert settings.round_seconds > 0
    assert "timm NHWC compiled" in names
    set_flags("--device=gpu", "--batch_size=96", "--contestant=ours")
    _, plan, names = benchmark.read_flags()
    assert (plan.sizes("256_8"), names) == ([96], ["ours"])


@pytest.fixture
def content():
    result = {
        "model": "1536_20",
        "step": "infer",
        "dtype": "bfloat16",
        "batch_size": 2,
        "ms_per_image": {"ours": 1.0},
        "all_ms_per_image": {"ours": [1.0] * 3},
        "first_step_s": {"ours": 1.0},
        "failed": {},
    }
    return {
        "settings": {"together": True},
        "frameworks": {"keras": {"backend": "jax"}},
        "ceilings": {"keras": {"matrix": {"bfloat16": 1e12}, "copy": 1e9}},
        "results": [result],
    }


@pytest.mark.parametrize("device", ["fake", "NVIDIA H200"])
def test_report_says_what_was_predicted_of_the_device(
    benchmark, set_flags, content, tmp_path, capsys, device
):
    content["frameworks"]["keras"]["device"] = device
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    set_flags(f"--output={path}", "--report")
    benchmark.main(["benchmark.py"])
    (summary,) = json.loads(path.read_text())["summary"]
    predicted = summary["predicted_ms_per_image"]
    cell = capsys.readouterr().out.splitlines()[-1].split(" | ")[-1]
    if device == "fake":
        assert (predicted, cell) == (None, "- |")
    else:
        # 102 GFLOP at 790 TFLOP/s.
        assert predicted["roofline"] == pytest.approx(0.129, abs=5e-4)
        assert cell == f"{predicted['unfused']:.3g} |"
    with Image.open(path.with_suffix(".png")) as image:
        assert image.width > 300


def test_without_matplotlib_there_is_all_but_the_picture(
    benchmark, set_flags, content, tmp_path, capsys, monkeypatch
):
    content["frameworks"]["keras"]["device"] = "fake"
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    set_flags(f"--output={path}", "--report")
    benchmark.main(["benchmark.py"])
    assert json.loads(path.read_text())["summary"]
    assert "No picture: " in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [path]


def test_predictions_are_written(benchmark, set_flags, tmp_path, capsys):
    path = tmp_path / "predictions.json"
    set_flags(f"--output={path}", "--predict", "--model=1024_20")
    benchmark.main(["benchmark.py"])
    written = json.loads(path.read_text())
    assert written["rates"]["device"] == "NVIDIA H200"
    assert len(written["ms_per_image"]) == 4
    assert "| 1024_20 | infer | float32 | 11.9 |" in capsys.readouterr().out


# timm has to be imported in another process as `import_timm` does it.
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
def run_benchmark(tmp_path, monkeypatch):
    import_timm()
    (tmp_path / "sitecustomize.py").write_text(CUSTOMIZE)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    monkeypatch.setenv("PYTHONPATH", path)

    def run(*arguments, **environment):
        common = ["--device=cpu", "--model=16_2", "--rounds=3", "--warmup=1"]
        output = f"--output={tmp_path / 'result.json'}"
        printed = run_python(RUN, *common, output, *arguments, **environment)
        return json.loads((tmp_path / "result.json").read_text()), printed

    return run


@pytest.mark.peer
def test_short_run_against_timm(run_benchmark):
    content, printed = run_benchmark("--batch_size=1", "--dtype=bfloat16")
    assert content["settings"]["threads"] == 1
    assert content["frameworks"]["torch"]["device"] == "cpu"
    cases = [(r["step"], r["dtype"]) for r in content["results"]]
    assert cases == [("infer", "bfloat16"), ("train", "bfloat16")]
    for result, summary in zip(
        content["results"], content["summary"], strict=True
    ):
        names = {"ours", "timm NCHW", "timm NHWC"}
        assert set(result["ms_per_image"]) == set(summary["best"]) == names
        assert all(len(t) == 3 for t in result["all_ms_per_image"].values())
        assert all(0 < b["share"] < 1 for b in summary["best"].values())
        assert f"{summary['ratio']:.2f}" in printed


@pytest.mark.peer
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_short_runs_on_other_backends(run_benchmark, backend):
    pytest.importorskip(backend)
    common = ["--batch_size=2", "--dtype=bfloat16"]
    begun, _ = run_benchmark(
        *common,
        "--step=infer",
        "--contestant=ours pure",
        KERAS_BACKEND=backend,
    )
    assert begun["frameworks"]["keras"]["backend"] == backend
    content, _ = run_benchmark(
        *common,
        "--step=train",
        "--contestant=ours",
        "--resume",
        KERAS_BACKEND=backend,
    )
    infer, train = content["results"]
    assert [infer] == begun["results"]
    assert set(infer["ms_per_image"]) == {"ours pure"}
    assert set(train["ms_per_image"]) == {"ours"}
    assert not infer["failed"] | train["failed"]


@pytest.mark.peer
@pytest.mark.parametrize("name", ["256_8", "768_32", "1024_20"])
def test_both_are_the_same_model(benchmark, load_recipe, name):
    import_timm()
    model, case = benchmark.MODELS[name], benchmark.Case(name, "", "float32")
    weights = load_recipe("speed.keras_steps").build_model(case, model)
    theirs = load_recipe("speed.timm_steps").build_model(model, False)
    assert sum(
        math.prod(weight.shape) for weight in weights.trainable_weights
    ) == sum(parameter.numel() for parameter in theirs.parameters())
    activations = {type(module).__name__ for module in theirs.modules()}
    assert activations & {"ReLU", "GELU"} == (
        {"ReLU"} if name == "768_32" else {"GELU"}
    )
