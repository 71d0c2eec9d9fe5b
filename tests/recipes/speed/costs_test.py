"""What a ConvMixer costs by its shape, and what is predicted from that."""

import json
import pathlib

import pytest

from convmixer_tf import ConvMixer
from convmixer_tf.analysis import count_macs

RESULTS = pathlib.Path(__file__).parents[3] / "recipes" / "results"


@pytest.fixture
def costs(load_recipe):
    return load_recipe("speed.costs")


@pytest.mark.parametrize(
    ("name", "total", "depthwise"),
    [
        # GMAC, computed from the layers' shapes by hand.
        ("1536_20", 51.10, 2.548),
        ("768_32", 20.68, 1.233),
        ("1024_20", 5.95, 0.425),
    ],
)
def test_macs_are_all_of_them(costs, name, total, depthwise):
    model = costs.MODELS[name]
    assert costs.macs(model) / 1e9 == pytest.approx(total, abs=0.005)
    parts = [layer.macs for layer in costs.layers(model) if layer.depthwise]
    assert sum(parts) / 1e9 == pytest.approx(depthwise, abs=0.0005)
    assert costs.macs(model, "train") == 3 * costs.macs(model)


def test_macs_are_those_of_the_graph(costs):
    shape = costs.MODELS["16_2"]
    model = ConvMixer(
        shape.dim,
        shape.depth,
        shape.kernel_size,
        shape.patch_size,
        input_shape=(shape.image_size, shape.image_size, 3),
        classes=shape.classes,
    )
    assert costs.macs(shape) == count_macs(model)


def test_models_are_the_published_ones(costs):
    assert costs.MODELS["768_32"].activation == "relu"
    assert costs.MODELS["1536_20"].activation == "gelu"
    assert costs.MODELS["256_8"].image_size == 32


@pytest.fixture
def layers(costs):
    return costs.Layer(1000, 10, 10, depthwise=True), costs.Layer(4000, 10, 10)


@pytest.mark.parametrize(
    ("step", "fused", "values"),
    [
        # Maps of 10 values: read and written once; then elementwise once
        # more, with the residual as a third operand.
        ("infer", True, (20, 20)),
        ("infer", False, (50, 40)),
        ("train", True, (100, 100)),
        ("train", False, (200, 160)),
    ],
)
def test_passes_move_so_many_values(costs, layers, step, fused, values):
    for layer, expected in zip(layers, values, strict=True):
        passes = costs.passes(layer, step, fused)
        assert sum(moved for _, moved in passes) == expected
        count = sum(macs for macs, _ in passes)
        assert count == layer.macs * (3 if step == "train" else 1)


def test_a_pass_takes_as_long_as_the_slower_of_arithmetic_and_memory(costs):
    model = costs.MODELS["16_2"]
    values, images = 64 * 16, 3 * 32 * 32

    def predict(**rates):
        rates = {"matrix": 1e30, "vector": 1e30, "copy": 1e30} | rates
        matrix = {"bfloat16": rates.pop("matrix")}
        return costs.predict(
            model, "infer", "bfloat16", costs.Rates("x", matrix, **rates)
        )

    depthwise = 2 * values * 9
    slow = predict(vector=1e3)
    assert slow["fused"] == pytest.approx(2 * depthwise)  # FLOP / kFLOP/s, ms
    assert slow["roofline"] < 1e-9
    slow = predict(matrix=1e3)
    total = costs.macs(model)
    assert slow["roofline"] == pytest.approx(2 * total)
    assert slow["fused"] == pytest.approx(2 * (total - depthwise))
    slow = predict(copy=1e3)
    moved = images + values + 4 * 2 * values + values + 10
    assert slow["fused"] == pytest.approx(2 * moved)
    assert slow["copies"] == pytest.approx(2 * moved)
    # Activation and normalisation, with the residual in both blocks.
    moved += 5 * 2 * values + 2 * values + 2 * 10
    assert slow["unfused"] == pytest.approx(2 * moved)


def test_what_was_predicted_is_what_the_rates_give(costs):
    path = RESULTS / "benchmark_predictions.json"
    written = json.loads(path.read_text())
    names = dict.fromkeys(row["model"] for row in written["ms_per_image"])
    assert set(names) == set(costs.MODELS) - {"16_2"}
    now = costs.predictions(names, costs.H200)
    assert written["rates"] == now["rates"]
    for row, expected in zip(
        written["ms_per_image"], now["ms_per_image"], strict=True
    ):
        case = [row.pop(key) for key in ("model", "step", "dtype")]
        assert case == [expected.pop(key) for key in ("model", "step", "dtype")]
        assert row == pytest.approx(expected, rel=1e-12)
