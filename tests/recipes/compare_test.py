"""Tests the comparison: models, checks, tables, tiny runs."""

import functools
import importlib.util
import json
import math
import pathlib

import numpy as np
import pytest
from absl import flags
from scipy import special

from convmixer_tf.analysis import count_macs
from convmixer_tf.models.normalization import statistics_in
from convmixer_tf.preprocessing import IMAGENET_MEAN
from convmixer_tf.training.averages import batch_norms
from tests.helpers import asymmetric_image
from tests.helpers import call_script
from tests.helpers import randomize
from tests.helpers import relative_difference

RECIPES = pathlib.Path(__file__).parents[2] / "recipes"
RESULTS = json.loads((RECIPES / "results" / "compare.json").read_text())
ROWS = {row["name"]: row for row in RESULTS["rows"]}
TRENDS = json.loads((RECIPES / "results" / "sweep.json").read_text())["rows"]


@pytest.fixture
def compare(load_recipe):
    return load_recipe("compare")


def build(compare, name, **settings):
    features = functools.partial(compare.ARCHITECTURES[name][0], **settings)
    return compare.classifier(features, (32, 32, 3), 10, None, name)


def settings_of(row):
    names = ("width", "depth", "patch_size")
    return {name: row[name] for name in names if name in row}


def check_model(compare, name):
    """Compares a model with the committed results and common properties."""
    row = ROWS[name]
    model = build(compare, name, **settings_of(row))
    assert compare.trainable_parameters(model) == row["parameters"]
    assert row["parameters"] == pytest.approx(
        ROWS["convmixer"]["parameters"], rel=0.1
    )
    assert count_macs(model) == row["macs"]
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, 10)
    norm = model.get_layer("normalization")
    mean, _ = statistics_in(norm.get_config())
    assert mean == pytest.approx(IMAGENET_MEAN)
    assert {norm.momentum for norm in batch_norms(model)} <= {0.9}
    logits = model(np.float32(asymmetric_image(32, 32)))
    assert np.isfinite(logits).all()
    return model


def test_resnet(compare):
    model = check_model(compare, "resnet")
    body = next(layer for layer in model.layers if hasattr(layer, "layers"))
    assert body.output_shape[1:3] == (8, 8)
    assert body.get_layer("conv2_block3_out").output.shape[1:3] == (16, 16)
    # Bottlenecks of three convolutions, two shortcuts, and the first.
    kernels = [w for w in model.trainable_weights if len(w.shape) == 4]
    assert len(kernels) == 3 * (3 + 4) + 2 + 1
    assert len(batch_norms(model)) == len(kernels)


def test_mobilenet(compare):
    model = check_model(compare, "mobilenet")
    body = next(layer for layer in model.layers if hasattr(layer, "layers"))
    assert body.output_shape[1:3] == (2, 2)


@pytest.mark.peer
def test_vit(compare):
    pytest.importorskip("keras_hub", reason="needs KerasHub")
    check_model(compare, "vit")


def test_mixer(compare):
    check_model(compare, "mixer")


def numpy_mixer(weights, images, patch, depth):
    """The paper's MLP-Mixer in NumPy and float64."""

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


def test_others_get_the_depth_and_the_size_wanted(compare):
    flags.FLAGS(["compare.py", "--depth=2", "--image_size=16"])
    other = compare.other_entry("mixer", 10, 10_000)
    assert other.settings["depth"] == 2
    model = other.build("softmax")
    assert model.input_shape == (None, 16, 16, 3)
    size = compare.trainable_parameters(model)
    assert size == pytest.approx(10_000, rel=0.1)
    assert model(np.zeros((1, 16, 16, 3))).numpy().sum() == pytest.approx(1)


def test_each_trend_changes_one_thing(compare):
    base = ["--dim=64", "--depth=4", "--trend=depth=8,1,8"]
    flags.FLAGS(["compare.py", *base, "--trend=kernel_size=3,9"])
    assert compare.trends() == {"depth": [1, 4, 8], "kernel_size": [3, 5, 9]}
    found = compare.entries(10)
    # The common start of both trends is trained once.
    assert [entry.name for entry in found] == [
        "convmixer_64_1_k5_p2",
        "convmixer_64_4_k5_p2",
        "convmixer_64_8_k5_p2",
        "convmixer_64_4_k3_p2",
        "convmixer_64_4_k9_p2",
    ]
    assert found[0].settings == {**compare.base(), "depth": 1}
    model = found[4].build(None)
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, 10)
    row = next(x for x in TRENDS if x["name"] == "convmixer_64_4_k9_p2")
    assert count_macs(model) == row["macs"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models=resnet,alexnet"], "must be a list of resnet, .*alexnet"),
        (["--trend=width=1,2"], "one of dim, depth, .*Received: width=1,2"),
        (["--trend=depth"], "such as dim=32,64. Received: depth"),
        (["--trend=depth=2,x"], "positive integers .*: depth=2,x"),
        (["--trend=dim=0"], "positive integers .*: dim=0"),
        (["--trend=patch_size=3"], "must divide the image size, 32 pixels"),
        (["--trend=patch_size=16"], "from 1 to 3. .* kernel size 5 with"),
        (["--patch_size=3"], "divide the image size, 32 pixels. .*: 3"),
        (["--token_size=0"], "patch size must divide"),
        (["--kernel_size=32"], "from 1 to 31. .* size 32 with patch size 2"),
        (["--kernel_size=0"], "must be from 1 to .* kernel size 0"),
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
    with pytest.raises(ImportError, match="`pip install keras-hub`, or pass"):
        compare.check_flags()
    flags.FLAGS(["compare.py", "--models=resnet,mobilenet,mixer"])
    compare.check_flags()


@pytest.mark.slow
def test_speed_is_relative_to_the_convmixer(compare, monkeypatch):
    flags.FLAGS(["compare.py", "--dim=4", "--depth=1", "--rounds=3"])
    build = compare.convmixer_entry("convmixer", compare.base(), 10).build
    seconds = iter(
        [
            {"convmixer": [4.0, 2.0, 3.0], "other": [1.0, 9.0, 1.0]},
            {"convmixer": [8.0, 8.0, 8.0], "other": [16.0, 16.0, 16.0]},
        ]
    )

    def take_turns(steps, rounds, warmup, clock):
        assert rounds == 3
        for step in steps.values():
            assert np.isfinite(step()).all()
        return next(seconds)

    monkeypatch.setattr(compare, "take_turns", take_turns)
    names = ("convmixer", "other")
    rows = [{"name": name, "precision": "float32"} for name in names]
    compare.add_speed(rows, [build, build])
    assert rows[1] == {
        **{"name": "other", "precision": "float32"},
        "inference_images_per_second": 64,
        "inference_ratio": 3,
        "training_images_per_second": 4,
        "training_ratio": 0.5,
    }
    assert rows[0]["inference_ratio"] == rows[0]["training_ratio"] == 1


@pytest.mark.parametrize(
    ("draw", "rows"),
    [("draw_costs", list(ROWS.values())), ("draw_trends", TRENDS)],
    ids=["compare", "trends"],
)
def test_committed_table_and_picture(compare, tmp_path, draw, rows):
    lines = compare.table(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert f"{rows[0]['parameters']:,}" in lines[2]
    assert f"{rows[-1]['top1']:.2%}" in lines[-1]
    getattr(compare, draw)(tmp_path / "picture.png", rows)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


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
    code, _, log = run_recipe("compare.py", *flags)
    assert code == 0, log[-3000:]
    assert log.count("step 3 of 3") == 3  # Nothing is trained again.
    second = json.loads((tmp_path / "compare.json").read_text())
    for old, new in zip(first["rows"], second["rows"], strict=True):
        assert old["top1"] == new["top1"]
    code, _, log = run_recipe("compare.py", *flags, "--learning_rate=0.1")
    assert code != 0
    assert "learning_rate was 0.002 and is 0.1. Choose another folder" in log


def test_wrong_flags_end_it_at_once(tmp_path):
    result = call_script(
        *("recipes/compare.py", "--data=digits", "--models=alexnet"),
        f"--output={tmp_path / 'new'}",
    )
    assert result.returncode != 0
    assert "`--models` must be a list of" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.large
def test_another_trend_is_added(run_recipe, tmp_path):
    flags = (
        *("--data=digits", "--dim=8", "--depth=1", "--patch_size=4"),
        *("--trend=kernel_size=3", "--epochs=1", "--batch_size=16"),
        *("--steps_per_epoch=2", "--notensorboard", f"--output={tmp_path}"),
    )
    code, _, log = run_recipe("compare.py", *flags)
    assert code == 0, log[-3000:]
    first = json.loads((tmp_path / "compare.json").read_text())["rows"]
    assert [row["kernel_size"] for row in first] == [3, 5]
    code, printed, log = run_recipe("compare.py", *flags, "--trend=depth=2")
    assert code == 0, log[-3000:]
    rows = json.loads((tmp_path / "compare.json").read_text())["rows"]
    assert [(row["trend"], row[row["trend"]]) for row in rows] == [
        ("kernel_size", 3),
        ("kernel_size", 5),
        ("depth", 1),
        ("depth", 2),
    ]
    assert [row["top1"] for row in rows[:2]] == [row["top1"] for row in first]
    assert rows[2]["top1"] == first[1]["top1"]
    assert len(printed.splitlines()) == 2 + 4 + 1
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
