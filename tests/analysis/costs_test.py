"""Compares the table of costs with manual sums and the counted graph."""

import csv
import json

import keras
import pytest
from keras import layers

from convmixer_tf import ConvMixer
from convmixer_tf import ConvMixer768_32
from convmixer_tf import ConvMixer1024_20
from convmixer_tf import ConvMixer1536_20
from convmixer_tf.analysis import count_macs
from convmixer_tf.analysis import layer_costs
from convmixer_tf.analysis.costs import costs_table
from convmixer_tf.analysis.costs import save_costs
from tests.analysis.macs_test import model_of

SIZES = {"dim": 6, "depth": 3, "kernel_size": 5, "patch_size": 4}
DEPTHWISE = 24 * 5**2 * 6


def small(**kwargs):
    return ConvMixer(**SIZES, **{"input_shape": (24, 16, 3), **kwargs})


def test_each_layer_and_the_sum():
    model = small(classes=9)
    *rows, total = layer_costs(model)
    rows = {row.name: row for row in rows}
    assert list(rows) == [layer.name for layer in model.layers[1:]]
    stem, block, head = (
        rows[name] for name in ("patch_embed", "block_1", "predictions")
    )
    assert stem.output_shape == block.output_shape == (6, 4, 6)
    assert stem.parameters == 4**2 * 3 * 6 + 6 + 2 * 6
    assert stem.statistics == 2 * 6
    assert stem.macs == 24 * 4**2 * 3 * 6
    assert (stem.receptive_field, block.receptive_field) == (4, 4 * 9)
    assert block.parameters == 5**2 * 6 + 6 + 6**2 + 6 + 4 * 6
    assert block.statistics == 4 * 6
    assert block.depthwise_macs == DEPTHWISE
    assert block.macs == DEPTHWISE + 24 * 6**2
    assert (stem.activations, block.activations) == (144, 288)
    assert block.activation_bytes == 4 * 288
    assert (head.parameters, head.macs, head.activations) == (63, 54, 9)

    assert total.name == "total"
    assert total.macs == count_macs(model)
    assert total.depthwise_macs == 3 * DEPTHWISE
    assert total.parameters + total.statistics == model.count_params()
    assert total.activations == 144 + 3 * 288 + 9


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_open_sizes_and_both_orders(data_format):
    keras.config.set_image_data_format(data_format)
    first = data_format == "channels_first"
    shape = (3, None, None) if first else (None, None, 3)
    model = small(input_shape=shape, classes=9)
    total = layer_costs(model, (3, 24, 16) if first else (24, 16, 3))[-1]
    assert total.macs == count_macs(
        model, (3, 24, 16) if first else (24, 16, 3)
    )
    assert total.activations == 144 + 3 * 288 + 9
    with pytest.raises(ValueError, match="`input_shape` is required because"):
        layer_costs(model)


def test_half_precision_takes_half_the_memory():
    keras.config.set_dtype_policy("mixed_bfloat16")
    rows = {row.name: row for row in layer_costs(small(classes=9))}
    assert rows["block_0"].activation_bytes == 2 * 288
    assert rows["predictions"].activation_bytes == 4 * 9


def test_frozen_weights_still_count():
    model = small()
    expected = layer_costs(model)
    model.trainable = False
    assert layer_costs(model) == expected


def test_other_models_are_an_error():
    with pytest.raises(ValueError, match="must be a ConvMixer, with the lay"):
        layer_costs(model_of(layers.Conv2D(3, 3)))
    body = small(include_top=False)
    both = layers.Add()([body.output, body.layers[-2].output])
    with pytest.raises(ValueError, match=r"chain of layers\. Received: `add"):
        layer_costs(keras.Model(body.input, [both, both]))


def test_files(tmp_path):
    rows = layer_costs(small(classes=9))
    for suffix in ("json", "csv", "md"):
        save_costs(tmp_path / f"costs.{suffix}", rows)
    total = json.loads((tmp_path / "costs.json").read_text())[-1]
    assert (total["name"], total["macs"]) == ("total", rows[-1].macs)
    with open(tmp_path / "costs.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["name"] for row in written] == [row.name for row in rows]
    assert written[2]["output_shape"] == "6x4x6"
    assert written[2]["receptive_field"] == "20"
    assert (tmp_path / "costs.md").read_text() == costs_table(rows) + "\n"
    assert f"| {rows[-1].macs:,} | {3 * DEPTHWISE:,} |" in costs_table(rows)
    with pytest.raises(ValueError, match=r"must end in \.json or \.csv or"):
        save_costs(tmp_path / "costs.txt", rows)
    with pytest.raises(FileExistsError, match="pass `--overwrite`"):
        save_costs(tmp_path / "costs.md", rows)


@pytest.mark.large
@pytest.mark.parametrize(
    ("build", "macs", "published", "parameters"),
    [
        # The third are timm's published figures, in 10^9.
        (ConvMixer1536_20, 51.10, 48.68, 51_625_960),
        (ConvMixer768_32, 20.68, 19.55, 21_110_248),
        (ConvMixer1024_20, 5.95, 5.55, 24_383_464),
    ],
    ids=["1536_20", "768_32", "1024_20"],
)
def test_published_figures(build, macs, published, parameters):
    total = layer_costs(build(weights=None))[-1]
    assert total.macs / 1e9 == pytest.approx(macs, abs=0.005)
    # Without depthwise convolutions, with two for each normalized value.
    theirs = total.macs - total.depthwise_macs + 2 * total.activations
    assert theirs / 1e9 == pytest.approx(published, abs=0.006)
    assert total.parameters == parameters
