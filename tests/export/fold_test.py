"""Tests that reading and folding a ConvMixer keeps the function."""

import itertools

import keras
import numpy as np
import pytest

from convmixer_tf.export.fold import EXTREME
from convmixer_tf.export.fold import fold
from convmixer_tf.export.fold import is_extreme
from convmixer_tf.export.fold import read_convmixer
from convmixer_tf.export.fold import sort_channels
from convmixer_tf.models import ConvMixer
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import relative_difference

IMAGES = asymmetric_image(23, 31)


def build(kernel_size=4, **arguments):
    if arguments.get("include_top", True):
        head = {"classes": 5, "classifier_activation": None}
        arguments = {**head, **arguments}
    # Keras rounds the constants of GELU to float32.
    arguments = {
        "input_shape": (23, 31, 3),
        "activation": "silu",
        **arguments,
    }
    return randomize(ConvMixer(16, 2, kernel_size, 3, **arguments))


def set_scales(model, values, norms=("depthwise_norm",)):
    """Sets the scales of some channels in the second block's norms."""
    for i, name in enumerate(norms):
        norm = getattr(model.get_layer("block_1"), name)
        gamma = np.array(norm.gamma.numpy())
        gamma[i : i + 2] = values
        norm.gamma.assign(gamma)
    return model


def depthwise(x, kernel, bias):
    """A depthwise convolution with "same" padding, in NumPy."""
    size, (_, height, width, _) = len(kernel), x.shape
    before = (size - 1) // 2
    pad = (before, size - 1 - before)
    x = np.pad(np.float64(x), [(0, 0), pad, pad, (0, 0)])
    taps = itertools.product(range(size), repeat=2)
    return bias + sum(
        x[:, i : i + height, j : j + width] * kernel[i, j] for i, j in taps
    )


def compute(network, images):
    """Computes a `Network` in NumPy and float64."""

    def follow(linear, x):
        x = keras.ops.convert_to_numpy(linear.activation(x))
        x = x if linear.scale is None else linear.scale * x
        return x if linear.shift is None else x + linear.shift

    patch, stem = len(network.stem.kernel), network.stem
    rows, columns = (side // patch for side in images.shape[1:3])
    x = np.float64(images)[:, : rows * patch, : columns * patch]
    x = x.reshape(len(x), rows, patch, columns, patch, -1)
    x = np.einsum("bhrwci,rcio->bhwo", x, stem.kernel) + stem.bias
    x = follow(stem, x)
    for first, second in network.blocks:
        y = depthwise(x, first.kernel, first.bias)
        x = x + follow(first, y)
        x = follow(second, x @ second.kernel[0, 0] + second.bias)
    if network.pooling:
        x = {"avg": np.mean, "max": np.max}[network.pooling](x, axis=(1, 2))
    if head := network.classifier:
        x = follow(head, x @ head.kernel + head.bias)
    return x


def assert_folds(model, expected, tolerance, images=IMAGES):
    for sort, divide, fold_last in itertools.product([False, True], repeat=3):
        network = read_convmixer(model)
        if sort:
            sort_channels(network)
        outputs = compute(network, images)
        assert relative_difference(outputs, expected) < tolerance
        fold(network, divide, fold_last)
        outputs = compute(network, images)
        assert relative_difference(outputs, expected) < tolerance


MODELS = {
    "odd kernel": lambda: build(5),
    "even kernel, relu": lambda: build(4, activation="relu"),
    "softmax": lambda: build(classifier_activation="softmax"),
    "features": lambda: build(include_top=False),
    "maximum": lambda: build(include_top=False, pooling="max"),
    "a scale of 0": lambda: set_scales(build(), 0),
    "extreme": lambda: set_scales(
        build(), 300, ("depthwise_norm", "pointwise_norm")
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_the_same_function_in_double_precision(kind):
    keras.config.set_dtype_policy("float64")
    model = MODELS[kind]()
    expected = keras.ops.convert_to_numpy(model(np.float64(IMAGES)))
    assert expected.dtype == "float64"
    # Keras rounds the constants of `Rescaling` to float32.
    assert_folds(model, expected, 1e-7)
    # Everything else is exact.
    patches = model.get_layer("patch_embed")
    body = keras.Model(patches.input, model.output)
    x = np.float64(IMAGES) / 64 - 2
    expected = keras.ops.convert_to_numpy(body(x))
    assert_folds(body, expected, 1e-12, x)


def test_what_remains_of_normalizations():
    def remaining(model, **arguments):
        network = read_convmixer(model)
        fold(network, **{"divide": True, "fold_last": True, **arguments})
        norms = network.norms().values()
        assert all(norm.shift is None for norm in list(norms)[1::2])
        return [norm.scale is not None for norm in norms]

    # The stem, then depthwise and pointwise convolutions in turn.
    assert remaining(build()) == [True, False, True, False, False]
    assert remaining(build(), divide=False) == [True] * 4 + [False]
    assert remaining(build(), fold_last=False)[-1]
    assert remaining(build(include_top=False, pooling="max"))[-1]
    for scale in (0, 1e-12, -1e-12, 1e6):
        found = remaining(set_scales(build(), scale))
        assert found == [True, False, True, True, False]


def test_channels_are_sorted_where_scales_are_extreme():
    def scales(model):
        network = read_convmixer(model)
        sort_channels(network)
        return [np.abs(norm.scale) for norm in network.norms().values()]

    plain = read_convmixer(build()).norms().values()
    for scale, before in zip(scales(build()), plain, strict=True):
        np.testing.assert_array_equal(scale, np.abs(before.scale))
    _, _, _, found, last = scales(
        set_scales(build(), 2 * EXTREME, ("depthwise_norm", "pointwise_norm"))
    )
    assert is_extreme(found)
    for scale in (found, last):
        assert (np.diff(scale) >= 0).all()
    # By both: the first splits into halves, the second sorts each half.
    model = set_scales(build(), 2 * EXTREME)
    norm = model.get_layer("block_0").pointwise_norm
    norm.gamma.assign(np.where(np.arange(16) % 9 == 0, 50.0, 1.0))
    _, _, first, second, _ = scales(model)
    assert first[:8].max() <= first[8:].min()
    for half in (second[:8], second[8:]):
        assert (np.diff(half) >= 0).all()


def test_the_channels_of_features_keep_their_order():
    model = set_scales(
        build(include_top=False), 300, ("depthwise_norm", "pointwise_norm")
    )
    network = read_convmixer(model)
    bias = network.blocks[-1][1].bias
    sort_channels(network)
    np.testing.assert_array_equal(network.blocks[-1][1].bias, bias)


def test_the_model_stays_as_it_was():
    model = set_scales(build(), 300)
    weights, config = model.get_weights(), model.get_config()
    network = read_convmixer(model)
    sort_channels(network)
    fold(network, divide=True, fold_last=True)
    for linear in (*network.norms().values(), network.classifier):
        linear.kernel[:] = linear.bias[:] = 0
    assert model.get_config() == config
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def _after_other_layers():
    image = keras.Input((23, 31, 3))
    return build(input_tensor=keras.layers.Rescaling(2.0)(image))


def _flattened():
    model = build(include_top=False)
    return keras.Model(model.input, keras.layers.Flatten()(model.output))


def _residual():
    image = keras.Input((8, 8, 3))
    return keras.Model(image, keras.layers.Add(name="sum")([image, image]))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda: keras.Sequential([keras.layers.Dense(3)]), "not a functional"),
        (_after_other_layers, "no PatchEmbed at its start"),
        (_flattened, "Flatten 'flatten.*' is not part of one"),
        (_residual, "'sum' takes 2 tensors"),
    ],
)
def test_other_models_are_refused(wrong, reason):
    message = rf"`model` must be a ConvMixer, or .*{reason}"
    with pytest.raises(ValueError, match=message):
        read_convmixer(wrong())


def test_weights_that_are_not_finite():
    model = build()
    model.get_layer("block_0").depthwise.bias.assign(np.full(16, np.nan))
    with pytest.raises(ValueError, match=r"infinity in .*depthwise/bias"):
        read_convmixer(model)
