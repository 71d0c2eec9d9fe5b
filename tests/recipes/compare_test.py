"""The comparison: its contestants, its checks, its tables, a tiny run."""

import csv
import dataclasses
import functools
import importlib.util
import json
import math
import pathlib
import re

import numpy as np
import pytest
from absl import flags
from scipy import special

from convmixer_tf.analysis import count_macs
from convmixer_tf.preprocessing import IMAGENET_MEAN
from convmixer_tf.training.averages import batch_norms
from convmixer_tf.training.run_log import open_run
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import relative_difference

RECIPES = pathlib.Path(__file__).parents[2] / "recipes"
RESULTS = json.loads((RECIPES / "results" / "compare.json").read_text())
ROWS = {row["name"]: row for row in RESULTS["rows"]}


@pytest.fixture
def compare(load_recipe):
    return load_recipe("compare")


@pytest.fixture
def open_contest(compare, tmp_path):
    """Opens a contest on scikit-learn's digits, with further flags."""

    def open_one(*arguments):
        common = ("--data=digits", f"--output={tmp_path}", "--notensorboard")
        flags.FLAGS(["compare.py", *common, *arguments])
        return compare.contests.open_contest()

    return open_one


def build(compare, name, **settings):
    features = functools.partial(compare.FEATURES[name], **settings)
    return compare.classifier(features, (32, 32, 3), 10, None, name)


def settings_of(row):
    names = ("width", "depth", "patch_size")
    return {name: row[name] for name in names if name in row}


def check_contestant(compare, name):
    """Holds a model against the committed results, and does what all must."""
    row = ROWS[name]
    model = build(compare, name, **settings_of(row))
    assert compare.contests.trainable_parameters(model) == row["parameters"]
    assert row["parameters"] == pytest.approx(
        ROWS["convmixer"]["parameters"], rel=0.1
    )
    assert count_macs(model) == row["macs"]
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, 10)
    norm = model.get_layer("normalization")
    assert norm.mean.numpy().ravel() / 255 == pytest.approx(IMAGENET_MEAN)
    assert {norm.momentum for norm in batch_norms(model)} <= {0.9}
    logits = model(np.float32(asymmetric_image(32, 32)))
    assert np.isfinite(logits).all()
    return model


def test_resnet(compare):
    model = check_contestant(compare, "resnet")
    body = next(layer for layer in model.layers if hasattr(layer, "layers"))
    assert body.output_shape[1:3] == (8, 8)
    assert body.get_layer("conv2_block3_out").output.shape[1:3] == (16, 16)
    # Bottlenecks of three convolutions, two shortcuts, and the first.
    kernels = [w for w in model.trainable_weights if len(w.shape) == 4]
    assert len(kernels) == 3 * (3 + 4) + 2 + 1
    assert len(batch_norms(model)) == len(kernels)


def test_mobilenet(compare):
    model = check_contestant(compare, "mobilenet")
    body = next(layer for layer in model.layers if hasattr(layer, "layers"))
    assert body.output_shape[1:3] == (2, 2)


@pytest.mark.peer
def test_vit(compare):
    pytest.importorskip("keras_hub", reason="needs KerasHub")
    check_contestant(compare, "vit")


def test_mixer(compare):
    check_contestant(compare, "mixer")


def numpy_mixer(weights, images, patch, depth):
    """MLP-Mixer as the paper has it, in plain NumPy, float64."""

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6)
        return x * weights[f"{name}/gamma"] + weights[f"{name}/beta"]

    def dense(x, name):
        return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    def mlp(x, name):
        x = dense(x, f"{name}_hidden")
        x = x * special.ndtr(x)
        return dense(x, f"{name}_output")

    x = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    side = images.shape[1] // patch
    x = x.reshape(-1, side, patch, side, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(-1, side * side, patch * patch * 3)
    kernel = weights["patch_embed/kernel"]
    x = x @ kernel.reshape(-1, kernel.shape[-1]) + weights["patch_embed/bias"]
    for i in range(depth):
        y = norm(x, f"block_{i}_patches_norm")
        y = mlp(y.swapaxes(1, 2), f"block_{i}_patches")
        x = x + y.swapaxes(1, 2)
        y = norm(x, f"block_{i}_channels_norm")
        x = x + mlp(y, f"block_{i}_channels")
    return dense(norm(x, "norm").mean(1), "predictions")


def test_mixer_computes_what_the_paper_says(compare):
    model = randomize(build(compare, "mixer", width=6, depth=2, patch_size=8))
    images = asymmetric_image(32, 32)
    weights = {w.path: np.float64(w.numpy()) for w in model.weights}
    expected = numpy_mixer(weights, images, 8, 2)
    assert relative_difference(model(np.float32(images)), expected) < 1e-5


def test_closest_width(compare):
    tried = []

    def count(width):
        tried.append(width)
        return 10 * width**2

    widths = range(1, 1000)
    assert compare.closest_width(count, widths, 10 * 50**2 + 400) == 50
    assert len(tried) == len(set(tried)) <= 11
    assert compare.closest_width(count, widths, 10 * 50**2 + 600) == 51
    assert compare.closest_width(count, widths, 1) == 1
    assert compare.closest_width(count, widths, 10**9) == 999


def test_opponents_get_the_depth_and_the_size_wanted(compare, open_contest):
    contest = open_contest("--depth=2", "--image_size=16")
    opponent = compare.opponent(contest, "mixer", 10_000)
    assert opponent.settings["depth"] == 2
    model = opponent.build("softmax")
    assert model.input_shape == (None, 16, 16, 3)
    size = compare.contests.trainable_parameters(model)
    assert size == pytest.approx(10_000, rel=0.1)
    assert model(np.zeros((1, 16, 16, 3))).numpy().sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models=resnet,alexnet"], "--models knows resnet, .*alexnet"),
        (["--patch_size=3"], "divide the images, of 32 pixels. .*a patch of 3"),
        (["--token_size=0"], "Patches must divide"),
        (["--kernel_size=32"], "at most 31: .* a kernel of 32 on patches of 2"),
        (["--kernel_size=0"], "at least 1 .* a kernel of 0"),
    ],
)
def test_wrong_flags(compare, arguments, message):
    flags.FLAGS(["compare.py", *arguments])
    with pytest.raises(ValueError, match=message):
        compare.check_flags()


def test_without_keras_hub_the_error_says_what_to_do(compare, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "keras_hub" else find(name),
    )
    flags.FLAGS(["compare.py"])
    with pytest.raises(ImportError, match="`pip install keras-hub`, or leave"):
        compare.check_flags()
    flags.FLAGS(["compare.py", "--models=resnet,mobilenet,mixer"])
    compare.check_flags()


def contestant(compare, width=8):
    return compare.contests.Contestant("one", {"width": width}, None)


def test_a_folder_of_other_settings_is_refused_before_work(
    compare, open_contest, tmp_path, monkeypatch
):
    contests = compare.contests
    monkeypatch.setattr(contests, "costs", lambda contestant: {})
    monkeypatch.setattr(contests, "_train", lambda *_: pytest.fail("trained"))
    contest, known = open_contest(), contestant(compare)
    notes = contests._notes(contest, known)
    open_run(tmp_path / "one", contest.config, notes)
    before = sorted(tmp_path.rglob("*"))
    for arguments, width, changed in (
        ([], 16, "model was {'width': 8} and is {'width': 16}"),
        (["--epochs=9"], 8, "epochs was 5 and is 9"),
        (["--augmentation=imagenet"], 8, "recipe was "),
    ):
        others = [contestant(compare, width)]
        with pytest.raises(ValueError, match=re.escape(changed)):
            contests.train_all(open_contest(*arguments), others)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_finished_is_read(compare, open_contest, tmp_path):
    summary = {"last": {"top1": 0.5}}
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "summary.json").write_text(json.dumps(summary))
    found = compare.contests._train(open_contest(), contestant(compare))
    assert found == summary


def test_results_are_json_and_csv(compare, open_contest, tmp_path):
    rows = [{"name": "a", "macs": 3}, {"name": "b", "macs": 4, "depth": 2}]
    contest = open_contest()
    compare.contests.write_results(contest, "table", rows, {"note": 1})
    content = json.loads((tmp_path / "table.json").read_text())
    assert content["rows"] == rows
    assert content["note"] == 1
    assert content["images"] == [
        len(contest.train_set),
        len(contest.eval_set),
    ]
    assert content["config"] == dataclasses.asdict(contest.config)
    with open(tmp_path / "table.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"name": "a", "macs": "3", "depth": ""},
            {"name": "b", "macs": "4", "depth": "2"},
        ]


def test_speed_is_relative_to_the_convmixer(compare, open_contest, monkeypatch):
    contest = open_contest("--dim=4", "--depth=1", "--rounds=3")
    reference = compare.convmixer(contest)
    other = dataclasses.replace(reference, name="other")
    seconds = iter(
        [
            {"convmixer": [4.0, 2.0, 3.0], "other": [1.0, 9.0, 1.0]},
            {"convmixer": [8.0, 8.0, 8.0], "other": [16.0, 16.0, 16.0]},
        ]
    )

    def take_turns(steps, rounds, warmup, clock):
        for step in steps.values():
            assert np.isfinite(step()).all()
        return next(seconds)

    monkeypatch.setattr(compare, "take_turns", take_turns)
    rows, timing = compare.measure_speed(contest, [reference, other])
    assert rows[1] == {
        "inference_images_per_second": 64,
        "inference_ratio": 3,
        "training_images_per_second": 4,
        "training_ratio": 0.5,
    }
    assert rows[0]["inference_ratio"] == rows[0]["training_ratio"] == 1
    assert timing["rounds"] == 3


def test_committed_table_and_picture(compare, tmp_path):
    rows = list(ROWS.values())
    lines = compare.table(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert f"{rows[0]['parameters']:,}" in lines[2]
    assert f"{rows[-1]['top1']:.2%}" in lines[-1]
    compare.draw(tmp_path / "picture.png", rows)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    with open(RECIPES / "results" / "compare.csv", newline="") as file:
        for read, row in zip(csv.DictReader(file), rows, strict=True):
            assert float(read["top1"]) == row["top1"]


@pytest.mark.large
def test_a_comparison_goes_on_where_it_was_stopped(run_recipe, tmp_path):
    flags = (
        *("--data=digits", "--models=resnet,mixer", "--dim=16", "--depth=1"),
        *("--epochs=1", "--steps_per_epoch=3", "--batch_size=16"),
        *("--rounds=3", "--notensorboard", f"--output={tmp_path}"),
    )
    code, printed, log = run_recipe("compare.py", *flags)
    assert code == 0, log[-3000:]
    first = json.loads((tmp_path / "compare.json").read_text())
    assert [row["name"] for row in first["rows"]] == [
        "convmixer",
        "resnet",
        "mixer",
    ]
    for row in first["rows"]:
        assert f"{row['top1']:.2%}" in printed
        assert math.isfinite(row["loss"])
    # As if it had been killed before the last model's end.
    (tmp_path / "mixer" / "summary.json").unlink()
    code, _, log = run_recipe("compare.py", *flags)
    assert code == 0, log[-3000:]
    assert "convmixer is at its end." in log
    assert "Goes on from step 3 of 3." in log
    second = json.loads((tmp_path / "compare.json").read_text())
    for old, new in zip(first["rows"], second["rows"], strict=True):
        assert old["top1"] == new["top1"]
    code, _, log = run_recipe("compare.py", *flags, "--learning_rate=0.1")
    assert code != 0
    assert "learning_rate was 0.002 and is 0.1. Take another folder" in log


def test_wrong_flags_end_it_at_once(run_recipe, tmp_path):
    code, _, log = run_recipe(
        *("compare.py", "--data=digits", "--models=alexnet"),
        f"--output={tmp_path / 'new'}",
    )
    assert code != 0
    assert "--models knows" in log
    assert list(tmp_path.iterdir()) == []
