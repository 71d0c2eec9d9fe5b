import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from convmixer_tf.models import ConvMixer
from convmixer_tf.preprocessing import normalize
from tests.helpers import asymmetric_image
from tests.helpers import numpy_convmixer
from tests.helpers import randomize
from tests.helpers import relative_difference


def tiny(**kwargs):
    return ConvMixer(8, 2, 3, 4, **{"classes": 5, **kwargs})


def weights_of(model):
    return {weight.path: weight.numpy() for weight in model.weights}


@pytest.mark.parametrize(
    ("kernel_size", "activation"),
    [(1, "gelu"), (2, "relu"), (3, "relu"), (4, "gelu"), (9, "gelu")],
)
def test_logits_are_those_of_an_independent_implementation(
    kernel_size, activation
):
    images = asymmetric_image()
    model = randomize(
        ConvMixer(
            8,
            2,
            kernel_size,
            4,
            activation,
            input_shape=(45, 31, 3),
            classes=5,
            classifier_activation=None,
        )
    )
    expected = numpy_convmixer(weights_of(model), images, activation)
    assert relative_difference(model.predict(images, verbose=0), expected) < (
        1e-5
    )
    # This test would detect each of the known defects of other ports.
    for wrong in (images[:, :, ::-1], images / 255, images[..., ::-1]):
        assert relative_difference(model(wrong), expected) > 1e-3


def test_gelu_is_the_exact_one():
    model = tiny()
    x = np.linspace(-4, 4, 100, dtype="float32")
    stem, *blocks = model.layers[2:5]
    for layer in (stem, *blocks):
        np.testing.assert_allclose(
            layer.activation(x), ops.gelu(x, approximate=False), atol=1e-6
        )


def test_parameter_count_formula():
    model = ConvMixer(256, 8, 5, 2, input_shape=(32, 32, 3), classes=10)
    trainable = sum(np.prod(v.shape) for v in model.trainable_variables)
    assert trainable == 594_186  # From the layer shapes.
    k9 = ConvMixer(256, 8, 9, 1, input_shape=(32, 32, 3), classes=10)
    trainable = sum(np.prod(v.shape) for v in k9.trainable_variables)
    assert trainable == 706_570


def test_layer_names_are_frozen():
    names = [layer.name for layer in tiny().layers]
    assert names == [
        "image",
        "normalization",
        "patch_embed",
        "block_0",
        "block_1",
        "avg_pool",
        "head_dropout",
        "predictions",
    ]
    norm = ["gamma", "beta", "moving_mean", "moving_variance"]
    block = [
        "depthwise/kernel",
        "depthwise/bias",
        *(f"depthwise_norm/{name}" for name in norm),
        "pointwise/kernel",
        "pointwise/bias",
        *(f"pointwise_norm/{name}" for name in norm),
    ]
    assert sorted(weights_of(tiny())) == sorted(
        [
            "patch_embed/conv/kernel",
            "patch_embed/conv/bias",
            *(f"patch_embed/norm/{name}" for name in norm),
            *(f"block_{i}/{name}" for i in (0, 1) for name in block),
            "predictions/kernel",
            "predictions/bias",
        ]
    )


def test_normalization_inside_equals_normalization_outside():
    images = asymmetric_image()
    inside = randomize(tiny(input_shape=(45, 31, 3)))
    outside = tiny(input_shape=(45, 31, 3), include_preprocessing=False)
    outside.set_weights(inside.get_weights())
    np.testing.assert_allclose(
        inside(images), outside(normalize(images)), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_any_number_of_channels(channels, data_format):
    keras.config.set_image_data_format(data_format)
    shape, images = (None, None, channels), asymmetric_image(channels=channels)
    if data_format == "channels_first":
        shape, images = shape[::-1], np.moveaxis(images, -1, 1)
    model = tiny(include_top=False, input_shape=shape)
    assert model(images).shape == (
        (2, 8, 11, 7) if data_format == "channels_first" else (2, 11, 7, 8)
    )


def test_statistics_of_the_pixels():
    def normalization(**kwargs):
        layer = tiny(**kwargs).get_layer("normalization")
        return layer(np.full((1, 1, 1, kwargs["input_shape"][-1]), 255.0))

    np.testing.assert_allclose(
        normalization(input_shape=(8, 8, 4)).numpy().ravel(),
        [
            (1 - m) / s
            for m, s in [
                (0.485, 0.229),
                (0.456, 0.224),
                (0.406, 0.225),
                (0.485, 0.229),
            ]
        ],
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        normalization(input_shape=(8, 8, 1)), (1 - 0.449) / 0.226, rtol=1e-5
    )
    np.testing.assert_allclose(
        normalization(input_shape=(8, 8, 2), mean=0.5, std=(0.5, 0.25))
        .numpy()
        .ravel(),
        [1, 2],
        rtol=1e-5,
    )


@pytest.mark.parametrize("size", [(4, 4), (123, 231), (31, 45)])
def test_any_size_with_or_without_static_shape(size):
    images = asymmetric_image(*size)
    fixed = randomize(tiny(input_shape=(*size, 3)))
    free = tiny(input_shape=(None, None, 3))
    assert free.input_shape == (None, None, None, 3)
    free.set_weights(fixed.get_weights())
    np.testing.assert_allclose(fixed(images), free(images), rtol=1e-5)


def test_default_sizes():
    assert tiny().input_shape == (None, 224, 224, 3)
    assert tiny(include_top=False).input_shape == (None, None, None, 3)


@pytest.mark.parametrize(
    ("pooling", "shape"),
    [(None, (None, 11, 7, 8)), ("avg", (None, 8)), ("max", (None, 8))],
)
def test_pooling(pooling, shape):
    model = tiny(include_top=False, pooling=pooling, input_shape=(45, 31, 3))
    assert model.output_shape == shape
    assert model.layers[-1].name == (
        f"{pooling}_pool" if pooling else "block_1"
    )


def test_pooled_features_are_those_before_the_classifier():
    images = asymmetric_image()
    whole = randomize(tiny(input_shape=(45, 31, 3), classifier_activation=None))
    body = tiny(include_top=False, pooling="avg", input_shape=(45, 31, 3))
    body.set_weights(whole.get_weights()[:-2])
    kernel, bias = whole.get_layer("predictions").get_weights()
    np.testing.assert_allclose(
        whole(images), body(images) @ kernel + bias, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("activation", [None, "softmax", "sigmoid"])
def test_classifier_activation(activation):
    images = asymmetric_image()
    logits = randomize(
        tiny(input_shape=(45, 31, 3), classifier_activation=None)
    )
    model = tiny(input_shape=(45, 31, 3), classifier_activation=activation)
    assert model.layers[-1].activation.__name__ == (activation or "linear")
    model.set_weights(logits.get_weights())
    np.testing.assert_allclose(
        model(images),
        keras.activations.get(activation)(logits(images)),
        rtol=1e-4,
    )


def test_input_tensor_with_layers_in_front():
    custom = keras.Input((90, 62, 4), name="custom_input")
    x = layers.Conv2D(3, 2, strides=2, name="front")(custom)
    model = tiny(include_top=False, input_tensor=x)
    assert model.input_shape == (None, 90, 62, 4)
    assert model.output_shape == (None, 11, 7, 8)
    assert [layer.name for layer in model.layers][:3] == [
        "custom_input",
        "front",
        "normalization",
    ]
    body = tiny(include_top=False)
    body.set_weights(model.get_weights()[2:])
    images = asymmetric_image(90, 62, 4).astype("float32")
    np.testing.assert_allclose(
        model(images), body(model.get_layer("front")(images)), rtol=1e-4
    )


def test_input_tensor_of_two_inputs():
    left, right = keras.Input((45, 31, 3)), keras.Input((45, 31, 3))
    model = tiny(input_tensor=layers.Average()([left, right]))
    images = asymmetric_image().astype("float32")
    twice = model([images, images])
    other = model([images, np.zeros_like(images)])
    assert twice.shape == (2, 5)
    assert not np.allclose(twice, other)


def test_serializes_and_deserializes():
    model = tiny(drop_path=0.1, dropout=0.2, input_shape=(45, 31, 3))
    restored = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(model)
    )
    assert restored.get_config() == model.get_config()
    assert len(restored.weights) == len(model.weights)


def test_numpys_numbers_are_as_good_as_pythons():
    integers = map(np.int64, (8, 2, 3, 4))
    model = ConvMixer(
        *integers,
        input_shape=np.array([16, 20, 3]),
        classes=np.array(5),
        mean=np.float32(0.5),
        std=np.array(0.25),
        dropout=np.float32(0.5),
        drop_path=np.float32(0.25),
    )
    expected = tiny(
        input_shape=(16, 20, 3),
        mean=0.5,
        std=0.25,
        dropout=0.5,
        drop_path=0.25,
    )
    assert model.to_json() == expected.to_json()


def test_drop_path_grows_linearly():
    model = ConvMixer(4, 5, 3, 4, drop_path=0.2)
    rates = [model.get_layer(f"block_{i}").drop_path for i in range(5)]
    np.testing.assert_allclose(rates, [0, 0.05, 0.1, 0.15, 0.2])
    single = ConvMixer(4, 1, 3, 4, drop_path=0.2)
    assert single.get_layer("block_0").drop_path == 0


def test_kernels_with_the_covariance_of_trained_ones_grow_wider(tmp_path):
    settings = {"classes": 5, "depthwise_initializer": "covariance"}
    model = ConvMixer(8, 3, 3, 4, **settings)
    blocks = [model.get_layer(f"block_{i}") for i in range(3)]
    depths = [block.depthwise_initializer.depth for block in blocks]
    assert depths == [0, 0.5, 1]
    kernels = [np.array(block.depthwise.kernel) for block in blocks]
    # The samples differ between blocks, and the last ones are wider.
    corners = [np.abs(kernel[0, 0]).mean() for kernel in kernels]
    assert corners[0] < corners[1] / 3
    assert not np.allclose(kernels[1], kernels[2])
    single = ConvMixer(8, 1, 3, 4, **settings)
    assert single.get_layer("block_0").depthwise_initializer.depth == 0

    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    copy = restored.get_layer("block_1").get_config()
    assert copy == model.get_layer("block_1").get_config()
    for got, expected in zip(
        restored.get_weights(), model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


def test_dropout_acts_on_the_features_in_training_only():
    model = tiny(dropout=0.5, input_shape=(45, 31, 3))
    images = asymmetric_image()
    for layer in model.layers:
        layer.trainable = False  # Then batch norm is the same in training.
    once, again = (model(images, training=True) for _ in range(2))
    assert not np.allclose(once, again)
    np.testing.assert_array_equal(model(images), model(images))


def test_half_precision_body_full_precision_head():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = tiny(input_shape=(45, 31, 3))
    assert model.get_layer("block_1").compute_dtype == "bfloat16"
    for name in ("normalization", "avg_pool", "predictions"):
        assert model.get_layer(name).compute_dtype == "float32"
    probabilities = ops.convert_to_numpy(model(asymmetric_image()))
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-6)
