"""Tests class activation maps. Their mean is the logit minus the bias."""

import dataclasses

import numpy as np
import pytest
from scipy import special

from convmixer_tf.analysis import class_activation_map
from convmixer_tf.analysis.activation_maps import save_activation_maps
from tests.helpers import asymmetric_image
from tests.helpers import relative_difference


@pytest.mark.parametrize(
    ("data_format", "dtype", "tolerance"),
    [
        ("channels_last", "float64", 1e-12),
        ("channels_last", "mixed_float16", 1e-5),
        ("channels_first", "float32", 1e-5),
    ],
)
@pytest.mark.parametrize("index", [None, 3, [4, 0]])
def test_the_mean_is_the_logit_less_the_bias(
    build, data_format, dtype, tolerance, index
):
    model, images = build(data_format, dtype)
    logits = np.array(model(images))
    chosen = logits.argmax(-1) if index is None else np.broadcast_to(index, 2)
    found = class_activation_map(model, images, index)
    assert found.maps.shape == (2, 7, 5)
    np.testing.assert_array_equal(found.classes, chosen)
    assert relative_difference(found.logits, logits) < tolerance
    bias = np.array(model.get_layer("predictions").bias)
    actual = found.maps.mean((1, 2))
    expected = logits[[0, 1], chosen] - bias[chosen]
    assert relative_difference(actual, expected) < tolerance


def test_logits_whatever_the_activation(build):
    model, images = build(classifier_activation="softmax")
    found = class_activation_map(model, images)
    shares = np.exp(found.logits) / np.exp(found.logits).sum(-1, keepdims=True)
    assert relative_difference(shares, model(images)) < 1e-12


@pytest.mark.parametrize("activation", [None, "softmax", "sigmoid"])
def test_the_title_has_the_models_own_probability(
    build, tmp_path, monkeypatch, activation
):
    from matplotlib.axes import Axes

    model, images = build(classifier_activation=activation)
    expected = np.array(model(images))
    if activation is None:
        expected = special.softmax(expected, -1)
    found = class_activation_map(model, images, [1, 3])
    assert relative_difference(found.probabilities, expected) < 1e-12
    titles = []
    monkeypatch.setattr(
        Axes, "set_title", lambda self, title, **_: titles.append(title)
    )
    save_activation_maps(tmp_path / "maps.png", images, found)
    chosen = expected[0, 1], expected[1, 3]
    numbers = zip((1, 3), chosen, strict=True)
    assert titles == [f"class {i}\n{share:.0%}" for i, share in numbers]


def test_one_logit_is_a_probability_by_sigmoid(build):
    model, images = build(classes=1)
    found = class_activation_map(model, images)
    expected = special.expit(found.logits)
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-6)


def test_a_patch_counts_where_it_is(build):
    """Without spatial mixing, each score depends only on its patch."""
    model, images = build()
    for i in range(3):
        kernel = model.get_layer(f"block_{i}").depthwise.kernel
        kernel.assign(kernel * 0)
    before = class_activation_map(model, images, 1).maps
    images[1, 8:12, 16:20] = 255  # The patch in row 2, column 4.
    after = class_activation_map(model, images, 1).maps
    changed = np.argwhere(np.abs(after - before) > 1e-9)
    np.testing.assert_array_equal(changed, [[1, 2, 4]])


@pytest.mark.parametrize("index", [5, -1, [0], [0, 1, 2], 1.0, "dog"])
def test_wrong_classes_are_an_error(build, index):
    model, images = build()
    with pytest.raises(ValueError, match="integer from 0 to 4, or a list of"):
        class_activation_map(model, images, index)


def test_a_model_without_classifier_is_an_error(build):
    model, images = build(include_top=False)
    with pytest.raises(ValueError, match="must end in global average pooling"):
        class_activation_map(model, images)


def test_picture(build, tmp_path, read_png):
    model, _ = build()
    images = asymmetric_image(31, 22) // 8  # Dark, without red or blue.
    images[...] = images.mean(-1, keepdims=True)
    found = class_activation_map(model, images)
    maps = np.zeros((2, 8, 8))
    maps[0, :4], maps[1, :4] = 3, -3
    found = dataclasses.replace(found, maps=maps)
    path = tmp_path / "maps.png"
    save_activation_maps(path, images, found, list("abcde"))
    pixels = np.int32(read_png(path))
    red, _, blue = np.moveaxis(pixels, -1, 0)
    width = pixels.shape[1] // 3
    # The first image's map is red, the second one's blue.
    assert (red[:, :width] > blue[:, :width] + 50).sum() > 1000
    assert (blue[:, :width] > red[:, :width] + 50).sum() == 0
    second = slice(int(1.2 * width), 2 * width)
    assert (blue[:, second] > red[:, second] + 50).sum() > 1000
    with pytest.raises(ValueError, match="1 images and 2 maps"):
        save_activation_maps(path, images[:1], found, overwrite=True)
