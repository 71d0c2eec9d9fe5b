"""Compares multiply-accumulates with manual sums and published figures."""

import keras
import pytest
import tensorflow as tf
from keras import layers

from convmixer_tf import ConvMixer
from convmixer_tf import ConvMixer512_16
from convmixer_tf import ConvMixer768_32
from convmixer_tf import ConvMixer1024_20
from convmixer_tf import ConvMixer1536_20
from convmixer_tf.analysis import count_macs


def function_of(function, shape):
    return layers.Lambda(function, output_shape=shape)


def model_of(layer, shape=(8, 6, 4)):
    image = keras.Input(shape)
    return keras.Model(image, layer(image))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        # Pixels of the output x kernel x input channels x output channels.
        (layers.Conv2D(10, (3, 2)), (6 * 5) * (3 * 2) * 4 * 10),
        (layers.Conv2D(10, 3, 2, "same"), (4 * 3) * (3 * 3) * 4 * 10),
        (layers.Conv2D(10, 3, groups=2), (6 * 4) * (3 * 3) * 2 * 10),
        (layers.DepthwiseConv2D(3), (6 * 4) * (3 * 3) * 4),
        (
            layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
            (8 * 6) * (3 * 3) * 8,
        ),
        (
            layers.SeparableConv2D(5, 3, padding="same"),
            (8 * 6) * (3 * 3 * 4 + 4 * 5),
        ),
        (layers.Dense(5), (8 * 6) * 4 * 5),
        (layers.EinsumDense("abcd,de->abce", (8, 6, 5)), (8 * 6) * 4 * 5),
        (layers.BatchNormalization(), 0),
        (layers.Activation("gelu"), 0),
        (layers.GlobalAveragePooling2D(), 0),
        (layers.Resizing(16, 16), 0),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_layers(layer, expected):
    assert count_macs(model_of(layer)) == expected


def test_attention_products():
    tokens = keras.Input((7, 12))
    attention = layers.MultiHeadAttention(num_heads=3, key_dim=4)
    model = keras.Model(tokens, attention(tokens, tokens))
    projections = 4 * 7 * 12 * 12  # Queries, keys, values, outputs.
    products = 2 * 3 * 7 * 7 * 4
    assert count_macs(model) == projections + products


@pytest.mark.parametrize("transposed", [False, True])
def test_matrix_products(transposed):
    def multiply(x):
        if transposed:
            return tf.matmul(x, x, transpose_a=True)
        return tf.matmul(x, x, transpose_b=True)

    model = model_of(layers.Lambda(multiply), (5, 3))
    assert count_macs(model) == (3 * 3 * 5 if transposed else 5 * 5 * 3)


def test_convmixer():
    dim, depth, kernel, patch, classes = 6, 3, 5, 4, 9
    model = ConvMixer(
        *(dim, depth, kernel, patch), input_shape=(24, 16, 3), classes=classes
    )
    grid = 6 * 4
    stem = grid * patch**2 * 3 * dim
    block = grid * (kernel**2 * dim + dim**2)
    assert count_macs(model) == stem + depth * block + dim * classes
    # The argument sets an unknown size.
    model = ConvMixer(
        *(dim, depth, kernel, patch), input_shape=(None, None, 3), classes=9
    )
    assert count_macs(model, (24, 16, 3)) == stem + depth * block + dim * 9
    with pytest.raises(ValueError, match="`input_shape` is required because"):
        count_macs(model)


def test_half_precision_changes_nothing():
    keras.config.set_dtype_policy("mixed_bfloat16")
    assert count_macs(model_of(layers.Conv2D(10, 3))) == 24 * 9 * 4 * 10


@pytest.mark.parametrize("jit", [False, True])
def test_functions_are_followed_at_each_call(jit):
    @tf.function(jit_compile=jit)
    def inner(x, kernel):
        return tf.nn.conv2d(x, kernel, 1, "SAME")

    outer = tf.function(lambda x, kernel: inner(inner(x, kernel), kernel))
    kernel = tf.ones((3, 3, 4, 4))
    shape = (8, 6, 4)
    model = model_of(function_of(lambda x: outer(x, kernel), shape), shape)
    assert count_macs(model) == 2 * (8 * 6) * (3 * 3) * 4 * 4


def in_a_loop(x):
    return tf.map_fn(lambda image: tf.matmul(image, image), x)


def of_positive_rows(x):
    rows = x[0][x[0, :, 0] > 0]
    return tf.matmul(rows, tf.ones((5, 5)))[None]


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (layers.Conv2DTranspose(5, 3), (8, 6, 4), "Conv2DBackpropInput"),
        (layers.Conv3D(5, 3), (4, 4, 4, 2), "operation Conv3D"),
        (function_of(in_a_loop, (5, 5)), (5, 5), "operation (Stateless)?While"),
        (
            layers.Lambda(lambda x: tf.einsum("...a,ab->...b", x, x[0])),
            (5, 5),
            "two tensors with named axes",
        ),
        (
            function_of(of_positive_rows, (None, 5)),
            (4, 5),
            "depends on the data",
        ),
    ],
    ids=["transposed", "3-D", "loop", "einsum", "data"],
)
def test_what_is_not_known_is_an_error(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        count_macs(model_of(layer, shape))


def test_two_inputs_are_an_error():
    images = [keras.Input((4,)), keras.Input((4,))]
    model = keras.Model(images, layers.Add()(images))
    with pytest.raises(ValueError, match="must have one input"):
        count_macs(model)


def test_other_backends_are_an_error(monkeypatch):
    model = model_of(layers.Dense(1))
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="Set KERAS_BACKEND=tensorflow"):
        count_macs(model)


@pytest.mark.large
@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (ConvMixer1536_20, 51.10),
        (ConvMixer768_32, 20.68),
        (ConvMixer1024_20, 5.95),
        # Manual sum: 1024 x 512 x (3 x 7^2 + 16 x (8^2 + 512)) + 512 x 1000.
        (ConvMixer512_16, 4.91),
        # He et al., arXiv 1512.03385, Table 1: 3.8 x 10^9.
        (keras.applications.ResNet50, 3.86),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_published_figures(build, expected):
    macs = count_macs(build(weights=None))
    assert macs / 1e9 == pytest.approx(expected, abs=0.005)


@pytest.mark.peer
def test_vit_of_keras_hub():
    """ViT-B/16: 17.6 x 10^9, Touvron et al., arXiv 2012.12877, Table 5."""
    keras_hub = pytest.importorskip("keras_hub", reason="needs KerasHub")
    model = keras_hub.models.ViTBackbone(
        image_shape=(224, 224, 3),
        patch_size=16,
        num_layers=12,
        num_heads=12,
        hidden_dim=768,
        mlp_dim=3072,
    )
    assert count_macs(model) / 1e9 == pytest.approx(17.6, abs=0.05)
