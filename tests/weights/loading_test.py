"""Tests that weights are loaded completely or not at all."""

import dataclasses

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from convmixer_tf.weights import load_weights
from convmixer_tf.weights.loading import adapt_stem
from convmixer_tf.weights.names import to_timm
from tests.weights.samples import QUANTIZATIONS
from tests.weights.samples import SMALL
from tests.weights.samples import assert_same
from tests.weights.samples import model_weights
from tests.weights.samples import quantized
from tests.weights.samples import random_state_dict
from tests.weights.samples import random_weights
from tests.weights.samples import small_model
from tests.weights.samples import with_lora

STEM = "patch_embed/conv/kernel"
HEAD = {"predictions/kernel", "predictions/bias"}


def save(directory, weights):
    """Saves Keras-named weights under timm's names."""
    path = directory / "small.safetensors"
    save_file(to_timm(weights), path)
    return path


def architecture(**changes):
    return dataclasses.replace(SMALL, **changes)


def assert_refused(path, message, model=None, **kwargs):
    """Asserts that loading fails with `message` and changes nothing."""
    model = model or small_model()
    before = model_weights(model)
    with pytest.raises(ValueError, match=message):
        load_weights(model, path, **kwargs)
    assert_same(model_weights(model), before)


@pytest.mark.parametrize("to_path", [str, lambda path: path])
def test_loads_every_weight(tmp_path, to_path):
    path = save(tmp_path, random_weights())
    model = small_model()
    load_weights(model, to_path(path))
    assert_same(model_weights(model), random_weights())


def test_missing(tmp_path):
    weights = random_weights()
    del weights["block_1/pointwise/bias"]
    assert_refused(
        save(tmp_path, weights),
        r"`.*small\.safetensors` do not fit the model `convmixer`\. "
        r"Missing: block_1/pointwise/bias\.$",
    )


def test_shallower_and_deeper(tmp_path):
    path = save(tmp_path, random_weights(architecture(depth=1)))
    assert_refused(path, r"Missing: block_1/.* and 7 more\.$")
    path = save(tmp_path, random_weights(architecture(depth=4)))
    assert_refused(path, r"Unexpected: block_2/.* and 19 more\.$")


def test_wrong_shape(tmp_path):
    path = save(tmp_path, random_weights(architecture(kernel_size=5)))
    assert_refused(
        path,
        r"Wrong shape: block_0/depthwise/kernel \(expected \(3, 3, 6, 1\), "
        r"received \(5, 5, 6, 1\)\), block_1/depthwise/kernel .*\)\.$",
    )


def test_everything_wrong_at_once(tmp_path):
    weights = random_weights(architecture(dim=7, depth=3))
    del weights["block_0/pointwise/bias"]
    assert_refused(
        save(tmp_path, weights),
        r"Missing: block_0/pointwise/bias\. Unexpected: block_2/.* and 7 more\."
        r" Wrong shape: patch_embed/conv/kernel .* more\.",
    )


def test_other_classes(tmp_path):
    path = save(tmp_path, random_weights(architecture(classes=7)))
    assert_refused(
        path,
        r"predictions/kernel \(expected \(6, 5\), received \(6, 7\)\).* "
        r"use the file's classifier: classes=7\. To "
        r"keep the model's classifier: reset_classifier=True\.$",
    )


@pytest.mark.parametrize("classes", [7, 5, None])
def test_reset_classifier(tmp_path, classes):
    weights = random_weights(architecture(classes=classes))
    path = save(tmp_path, weights)
    model = small_model()
    before = model_weights(model)
    load_weights(model, path, reset_classifier=True)
    head = {name: before[name] for name in HEAD}
    assert_same(model_weights(model), {**weights, **head})


def test_model_without_top_leaves_the_classifier_out(tmp_path):
    path = save(tmp_path, random_weights())
    model = small_model(include_top=False, pooling="avg")
    load_weights(model, path)
    expected = {k: v for k, v in random_weights().items() if k not in HEAD}
    assert_same(model_weights(model), expected)


def test_file_without_classifier_needs_reset_classifier(tmp_path):
    weights = random_weights(architecture(classes=None))
    assert_refused(
        save(tmp_path, weights),
        r"Missing: predictions/kernel, predictions/bias\. "
        r".*reset_classifier=True\.$",
    )


def test_half_a_classifier_is_refused(tmp_path):
    weights = random_weights()
    del weights["predictions/bias"]
    assert_refused(save(tmp_path, weights), r"Missing: predictions/bias\.")


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_adapt_channels(tmp_path, channels):
    path = save(tmp_path, random_weights())
    shape = (None, None, channels)
    assert_refused(
        path,
        r"Wrong shape: patch_embed/conv/kernel "
        rf"\(expected \(4, 4, {channels}, 6\), "
        r"received \(4, 4, 3, 6\)\).*adapt_channels=True\.$",
        small_model(input_shape=shape),
    )
    model = small_model(input_shape=shape)
    load_weights(model, path, adapt_channels=True)
    rgb = random_weights()[STEM]
    actual = model_weights(model)[STEM]
    for channel in range(channels):
        expected = (
            rgb.sum(axis=2)
            if channels == 1
            else rgb[:, :, channel % 3] * 3 / channels
        )
        np.testing.assert_allclose(actual[:, :, channel], expected, rtol=1e-6)


def test_adapt_channels_changes_nothing_that_fits(tmp_path):
    path = save(tmp_path, random_weights())
    model = small_model()
    load_weights(model, path, adapt_channels=True)
    assert_same(model_weights(model), random_weights())


def test_only_three_channels_are_adapted(tmp_path):
    path = save(tmp_path, random_weights(architecture(channels=4)))
    for adapt in (True, False):
        assert_refused(
            path,
            r"received \(4, 4, 4, 6\)\)\. Only weights for 3 channels can be "
            r"adapted, not for 4\. Build the model with an `input_shape` of 4 "
            r"channels, and pass such images\.$",
            adapt_channels=adapt,
        )


@pytest.mark.parametrize("file", [1, 2, 4])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_other_channels_are_not_adapted(tmp_path, file, channels):
    weights = random_weights(architecture(channels=file))
    path = save(tmp_path, weights)
    shape = (None, None, channels)
    if file != channels:
        with pytest.raises(ValueError, match=f"`input_shape` of {file}"):
            small_model(weights=path, input_shape=shape, adapt_channels=True)
        return
    model = small_model(weights=path, input_shape=shape, adapt_channels=True)
    assert_same(model_weights(model), weights)


@pytest.mark.slow
@pytest.mark.parametrize("mode", QUANTIZATIONS)
def test_quantized_model_is_refused(tmp_path, mode):
    path = save(tmp_path, random_weights())
    assert_refused(
        path,
        r"`convmixer` are quantized or have LoRA: predictions\. Load .*before",
        quantized(small_model(), mode),
    )


def test_model_with_lora_is_refused(tmp_path):
    path = save(tmp_path, random_weights())
    model = small_model()
    block = model.get_layer("block_1")
    with_lora(model, model.get_layer("patch_embed").conv, block.pointwise)
    assert_refused(
        path, "have LoRA: patch_embed/conv, block_1/pointwise", model
    )


def test_a_quantized_classifier_that_is_kept_does_not_matter(tmp_path):
    path = save(tmp_path, random_weights())
    model = quantized(small_model(), "int8")
    before = model_weights(model)
    load_weights(model, path, reset_classifier=True)
    head = {k: v for k, v in before.items() if k.startswith("predictions/")}
    body = {k: v for k, v in random_weights().items() if k not in HEAD}
    assert_same(model_weights(model), {**body, **head})


def test_adapted_response_to_gray_is_kept():
    kernel = random_weights()[STEM]
    gray = adapt_stem(kernel, 1)
    np.testing.assert_allclose(gray[:, :, 0], kernel.sum(axis=2), rtol=1e-6)
    six = adapt_stem(kernel, 6)
    np.testing.assert_allclose(six.sum(axis=2), kernel.sum(axis=2), rtol=1e-6)


def test_adapted_half_precision_is_computed_in_single():
    kernel = random_weights(dtype="float16")[STEM]
    expected = kernel.astype("float32").sum(axis=2, keepdims=True)
    np.testing.assert_array_equal(
        adapt_stem(kernel, 1), expected.astype("float16")
    )


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_file_in_another_precision(tmp_path, dtype):
    weights = random_weights(dtype=dtype)
    model = small_model()
    load_weights(model, save(tmp_path, weights))
    expected = {p: value.astype("float32") for p, value in weights.items()}
    assert_same(model_weights(model), expected)


@pytest.mark.parametrize(
    ("policy", "dtype"),
    [
        ("mixed_float16", "float32"),
        ("mixed_bfloat16", "float32"),
        ("bfloat16", "bfloat16"),
        ("float16", "float16"),
        ("float64", "float64"),
    ],
)
def test_dtype_policies(tmp_path, policy, dtype):
    path = save(tmp_path, random_weights())
    keras.config.set_dtype_policy(policy)
    model = small_model()
    load_weights(model, path)
    keras.config.set_dtype_policy("float32")
    expected = {p: v.astype(dtype) for p, v in random_weights().items()}
    assert_same(model_weights(model), expected)


def test_overflow_of_half_precision_is_refused(tmp_path):
    weights = random_weights()
    weights["predictions/bias"][1] = 1e6
    path = save(tmp_path, weights)
    keras.config.set_dtype_policy("float16")
    model = small_model()
    keras.config.set_dtype_policy("float32")
    assert_refused(
        path, "too large for the model's float16 .*predictions/bias", model
    )


def test_values_that_are_not_finite_are_refused(tmp_path):
    weights = random_weights()
    weights["predictions/bias"][1] = np.nan
    assert_refused(save(tmp_path, weights), "not finite, in predictions/bias")


def test_layers_in_front_keep_their_values(tmp_path):
    path = save(tmp_path, random_weights())
    inputs = keras.Input((8, 8, 1))
    colors = keras.layers.Conv2D(3, 1, name="colors")(inputs)
    model = small_model(input_tensor=colors, input_shape=None)
    before = model_weights(model)
    load_weights(model, path)
    front = {name: before[name] for name in ("colors/kernel", "colors/bias")}
    assert_same(model_weights(model), {**random_weights(), **front})


class Encoder(keras.layers.Layer):
    """A layer whose `build` builds a ConvMixer."""

    def build(self, input_shape):
        self.body = small_model()


def test_a_model_within_a_scope(tmp_path):
    path = save(tmp_path, random_weights())
    with keras.name_scope("outer"), keras.name_scope("inner"):
        scoped = small_model()
    encoder = Encoder(name="encoder")
    encoder.build((None, 8, 8, 3))
    for model in (scoped, encoder.body):
        load_weights(model, path)
        found = {
            p.partition("/")[2].removeprefix("inner/"): value
            for p, value in model_weights(model).items()
        }
        assert_same(found, random_weights())


def test_two_convmixers_are_refused(tmp_path):
    path = save(tmp_path, random_weights())
    image = keras.Input((8, 8, 3))
    parts = [small_model(name=name) for name in "ab"]
    both = keras.layers.add([part(image) for part in parts])
    both = keras.Model(image, both)
    before = [model_weights(part) for part in parts]
    with pytest.raises(ValueError, match="the layers of one ConvMixer; pass"):
        load_weights(both, path)
    for part, values in zip(parts, before, strict=True):
        assert_same(model_weights(part), values)


def test_dropout_and_drop_path_do_not_matter(tmp_path):
    path = save(tmp_path, random_weights())
    model = small_model(dropout=0.5, drop_path=0.5)
    load_weights(model, path)
    assert_same(model_weights(model), random_weights())


def test_constructor_loads(tmp_path):
    path = save(tmp_path, random_weights())
    assert_same(model_weights(small_model(weights=path)), random_weights())


def test_model_that_is_no_convmixer(tmp_path):
    path = save(tmp_path, random_weights())
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    assert_refused(path, "Argument `model` must be .* ConvMixer", model)


def test_damaged_file_changes_nothing(tmp_path):
    path = save(tmp_path, random_weights())
    path.write_bytes(path.read_bytes()[:-1])
    assert_refused(path, "is truncated")


def test_channels_first(tmp_path):
    path = save(tmp_path, random_weights())
    keras.config.set_image_data_format("channels_first")
    model = small_model(input_shape=(3, None, None))
    load_weights(model, path)
    assert_same(model_weights(model), random_weights())


def test_names_of_the_sample_are_those_of_the_model():
    shapes = {v.path: tuple(v.shape) for v in small_model().weights}
    assert shapes == SMALL.shapes()
    assert len(random_state_dict()) == len(shapes) + 5  # num_batches_tracked
