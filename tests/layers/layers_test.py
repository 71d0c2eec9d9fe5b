"""Tests all layers, and properties of single layers."""

import keras
import numpy as np
import pytest
from keras import ops

from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.layers import CovarianceInitializer
from convmixer_tf.layers import PatchEmbed
from tests.helpers import randomize
from tests.helpers import relative_difference

CASES = {
    "patch_embed": (
        PatchEmbed,
        {"dim": 8, "patch_size": 4, "activation": "relu", "name": "stem"},
        (2, 13, 9, 3),
        (2, 3, 2, 8),
    ),
    "block": (
        ConvMixerBlock,
        {
            "kernel_size": 5,
            "activation": "silu",
            "drop_path": 0.25,
            "remat": True,
            "depthwise_initializer": CovarianceInitializer(0.5),
            "name": "mixer",
        },
        (2, 7, 4, 6),
        (2, 7, 4, 6),
    ),
    "block with an even kernel": (
        ConvMixerBlock,
        {"kernel_size": 4},
        (2, 5, 5, 3),
        (2, 5, 5, 3),
    ),
}
LAYERS = pytest.mark.parametrize(
    ("cls", "config", "input_shape", "output_shape"), CASES.values(), ids=CASES
)


@LAYERS
def test_config_round_trip(cls, config, input_shape, output_shape):
    layer = cls(**config, dtype="mixed_bfloat16", data_format="channels_first")
    restored = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert type(restored) is cls
    assert restored.get_config() == layer.get_config()
    for name, value in config.items():
        if name not in ("activation", "depthwise_initializer"):
            assert getattr(restored, name) == value
    assert restored.activation is layer.activation
    assert restored.data_format == "channels_first"
    assert restored.dtype_policy.name == "mixed_bfloat16"


@LAYERS
def test_shapes(cls, config, input_shape, output_shape):
    layer = cls(**config)
    assert layer.compute_output_shape(input_shape) == output_shape
    assert layer(np.ones(input_shape)).shape == output_shape
    symbolic = cls(**config)(keras.Input((None, None, input_shape[-1])))
    assert symbolic.shape == (None, None, None, output_shape[-1])


@LAYERS
@pytest.mark.parametrize("as_wide_as_deep", [False, True])
def test_channels_first_computes_the_same(
    cls, config, input_shape, output_shape, as_wide_as_deep
):
    if as_wide_as_deep:  # Keras' layers would confuse columns and channels.
        columns = output_shape[3] * (input_shape[2] // output_shape[2])
        input_shape = (*input_shape[:2], columns, input_shape[3])
    x = np.random.normal(size=input_shape).astype("float32")
    last = cls(**config)
    expected = last(x)
    randomize(last)
    expected = last(x)
    first = cls(**config, data_format="channels_first")
    first.build((input_shape[0], input_shape[3], *input_shape[1:3]))
    first.set_weights(last.get_weights())
    actual = first(np.transpose(x, (0, 3, 1, 2)))
    assert relative_difference(np.transpose(actual, (0, 2, 3, 1)), expected) < (
        1e-5
    )


@LAYERS
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(cls, config, input_shape, output_shape, policy):
    x = np.random.normal(size=input_shape).astype("float32")
    full = cls(**config)
    full.build(input_shape)
    randomize(full)
    half = cls(**config, dtype=policy)
    half.build(input_shape)
    half.set_weights(full.get_weights())
    actual = half(x)
    assert keras.backend.standardize_dtype(actual.dtype) in policy
    assert {weight.dtype for weight in half.weights} == {"float32"}
    actual = ops.convert_to_numpy(ops.cast(actual, "float32"))
    assert 0 < relative_difference(actual, full(x)) < 0.03


@LAYERS
@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 8, 8, None)])
def test_rejects_what_is_no_image(
    cls, config, input_shape, output_shape, shape
):
    with pytest.raises(ValueError, match="must be a batch of images"):
        cls(**config).build(shape)


@pytest.mark.parametrize("value", [0, -3, 2.0, "5", None, True])
@pytest.mark.parametrize(
    ("cls", "config", "argument"),
    [
        (PatchEmbed, {"patch_size": 2}, "dim"),
        (PatchEmbed, {"dim": 2}, "patch_size"),
        (ConvMixerBlock, {}, "kernel_size"),
    ],
)
def test_rejects_what_is_no_size(cls, config, argument, value):
    message = f"`{argument}` must be a positive integer. Received: {argument}="
    with pytest.raises(ValueError, match=message):
        cls(**config, **{argument: value})


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, "0.1"])
def test_rejects_a_bad_drop_path(value):
    with pytest.raises(ValueError, match="`drop_path` must be a number of"):
        ConvMixerBlock(3, drop_path=value)


def test_initial_values_are_those_of_pytorch():
    stem = PatchEmbed(64, 7)
    stem.build((None, 224, 224, 3))
    block = ConvMixerBlock(9)
    block.build((None, 8, 8, 64))
    for layer, fan_in in (
        (stem.conv, 7 * 7 * 3),
        (block.depthwise, 9 * 9),
        (block.pointwise, 64),
    ):
        limit = fan_in**-0.5
        for weight in layer.weights:
            values = weight.numpy()
            assert np.abs(values).max() <= limit
            # The variance of a uniform distribution, 64 draws or more.
            assert np.std(values) == pytest.approx(limit / 3**0.5, rel=0.25)
    assert not np.array_equal(stem.conv.bias, block.pointwise.bias)


def test_batch_norm_constants_are_those_of_pytorch():
    stem = PatchEmbed(4, 2)
    stem.build((None, 4, 4, 3))
    block = ConvMixerBlock(3)
    block.build((None, 4, 4, 4))
    for norm in (stem.norm, block.depthwise_norm, block.pointwise_norm):
        assert norm.epsilon == 1e-5
        assert norm.momentum == 0.9


def test_drop_path_drops_whole_images_and_rescales():
    block = ConvMixerBlock(3, drop_path=0.4)
    ones = np.ones((4000, 1, 1, 1), "float32")
    kept = ops.convert_to_numpy(block.residual_dropout(ones, training=True))
    assert set(np.round(np.unique(kept), 5)) == {0, np.float32(1.66667)}
    assert (kept > 0).mean() == pytest.approx(0.6, abs=0.04)
    wide = ops.convert_to_numpy(
        block.residual_dropout(np.ones((50, 3, 4, 5)), training=True)
    )
    assert (wide == wide[:, :1, :1, :1]).all()


def test_drop_path_leaves_the_input_of_a_dropped_image():
    block = ConvMixerBlock(3, drop_path=0.5, activation="linear")
    x = np.random.normal(size=(64, 5, 5, 4)).astype("float32")
    block.build(x.shape)
    block.pointwise.kernel.assign(np.eye(4)[None, None])
    block.depthwise_norm.beta.assign([100.0] * 4)  # Marks kept branches.
    y = ops.convert_to_numpy(block(x, training=True))
    dropped = y.mean((1, 2, 3)) < 0
    assert 15 < dropped.sum() < 49
    # A dropped image is only its input, shifted and scaled.
    x, y = x[dropped][..., 0].ravel(), y[dropped][..., 0].ravel()
    slope, offset = np.polyfit(x, y, 1)
    np.testing.assert_allclose(y, slope * x + offset, atol=1e-3)
