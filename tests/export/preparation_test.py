"""Tests users' models: quantized, with LoRA, within other models."""

import functools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.analysis import class_activation_map
from convmixer_tf.analysis import dense_classifier
from convmixer_tf.analysis import feature_extractor
from convmixer_tf.export import deploy
from convmixer_tf.export import export_onnx
from convmixer_tf.export import export_saved_model
from convmixer_tf.export import export_tfhub
from convmixer_tf.export import export_tflite
from convmixer_tf.export.litert import LiteRTModel
from convmixer_tf.export.verification.verify import verify
from convmixer_tf.models import ConvMixer
from convmixer_tf.weights.effective import effective_weights
from tests.export.onnx_test import run as run_onnx
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import relative_difference

IMAGES = asymmetric_image(24, 20, batch=12).astype("float32")


def convmixer(**arguments):
    arguments = {"classes": 5, "input_shape": (24, 20, 3), **arguments}
    return randomize(ConvMixer(16, 2, 3, 4, **arguments))


def quantize(model, mode, **config):
    if config:
        config = {"config": keras.quantizers.Int4QuantizationConfig(**config)}
        mode = None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Layer .* does not have a `quanti")
        model.quantize(mode, **config)


def enable_lora(model):
    head = model.get_layer("predictions")
    head.enable_lora(2)
    head.lora_kernel_b.assign(np.random.default_rng(1).normal(size=(2, 5)))


CHANGES = {
    "int8": lambda model: quantize(model, "int8"),
    "int4": lambda model: quantize(model, "int4", block_size=None),
    "int4 in blocks": lambda model: quantize(model, "int4", block_size=8),
    "float8": lambda model: quantize(model, "float8"),
    "lora": enable_lora,
    "lora, int8": lambda model: (enable_lora(model), quantize(model, "int8")),
}


@functools.cache
def changed(change):
    """A changed model, and the outputs of a float model with its weights."""
    model = convmixer()
    CHANGES[change](model)
    copied = convmixer()
    weights = effective_weights(model.get_layer("predictions"))
    copied.get_layer("predictions").set_weights(weights)
    # Keras also rounds the pooled features.
    difference = np.abs(model(IMAGES) - copied(IMAGES)).max()
    assert difference < (1e-5 if change == "lora" else 0.03)
    assert np.abs(convmixer()(IMAGES) - model(IMAGES)).max() > 1e-4
    return model, copied(IMAGES).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_deployed(change):
    model, expected = changed(change)
    assert relative_difference(deploy(model)(IMAGES), expected) < 1e-5


def onnx(model, folder, **arguments):
    export_onnx(model, folder / "model.onnx", **arguments)
    return run_onnx(folder / "model.onnx", IMAGES)


def onnx_plain(model, folder):
    return onnx(model, folder, plain=True)


def tflite(model, folder, **arguments):
    export_tflite(model, folder / "model.tflite", **arguments)
    found = LiteRTModel(folder / "model.tflite", 1)
    return np.concatenate([found.predict(image[None]) for image in IMAGES])


def tflite_plain(model, folder):
    return tflite(model, folder, plain=True)


def saved_model(model, folder):
    export_saved_model(model, folder / "saved_model")
    loaded = tf.saved_model.load(folder / "saved_model")
    return loaded.serve(IMAGES)


def tfhub(model, folder):
    export_tfhub(model, folder / "module")
    logits = tf.saved_model.load(folder / "module" / "saved_model")(IMAGES)
    return tf.nn.softmax(logits)


def activation_maps(model, folder):
    del folder
    return class_activation_map(model, IMAGES).probabilities


def dense(model, folder):
    del folder
    return tf.nn.softmax(
        tf.reduce_mean(dense_classifier(model)(IMAGES), (1, 2))
    )


# All of these read the same weights with `effective_weights`.
ARTIFACTS = {
    onnx: "int8",
    onnx_plain: "lora",
    tflite: "lora",
    tflite_plain: "int8",
    saved_model: "lora",
    tfhub: "int8",
    activation_maps: "int8",
    dense: "lora",
}


@pytest.mark.slow
@pytest.mark.parametrize("export", ARTIFACTS, ids=lambda x: x.__name__)
def test_exported(tmp_path, export):
    model, expected = changed(ARTIFACTS[export])
    assert relative_difference(export(model, tmp_path), expected) < 1e-5


def test_a_convolution_with_lora(tmp_path):
    model = convmixer()
    for layer in (
        model.get_layer("block_1").pointwise,
        model.get_layer("patch_embed").conv,
    ):
        layer.enable_lora(2)
        shape = layer.lora_kernel_b.shape
        values = np.random.default_rng(2).normal(0, 0.3, shape)
        layer.lora_kernel_b.assign(values)
    expected = model(IMAGES)
    assert np.abs(convmixer()(IMAGES) - expected).max() > 0.01
    for export in (onnx, dense, tfhub):
        outputs = export(model, tmp_path)
        assert relative_difference(outputs, expected) < 1e-5
    maps = feature_extractor(model)(IMAGES)["block_1"]
    features = keras.Model(model.input, model.get_layer("block_1").output)
    assert relative_difference(maps, features(IMAGES)) < 1e-5


@pytest.mark.slow
def test_a_quantized_model_keeps_its_limits_and_half_precision(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model, _ = changed.__wrapped__("int8")
    keras.config.set_dtype_policy("float32")
    export_onnx(model, tmp_path / "model.onnx")
    report = verify(model, tmp_path / "model.onnx", IMAGES)
    assert report.passed, report.broken


AUGMENTATION = (
    keras.layers.RandomFlip,
    lambda: keras.layers.RandomRotation(0.2),
    lambda: keras.layers.RandomContrast(0.5),
)


def body(**arguments):
    arguments = {"include_top": False, "pooling": "avg", **arguments}
    return convmixer(**arguments)


def sequential(dtype=None, **arguments):
    return keras.Sequential(
        [
            keras.Input((24, 20, 3)),
            *(make() for make in AUGMENTATION),
            body(**arguments),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(4, activation="softmax", dtype=dtype),
        ]
    )


def functional(activation, pooling="avg"):
    image = keras.Input((24, 20, 3))
    x = keras.Sequential([make() for make in AUGMENTATION])(image)
    x = body(pooling=pooling)(x, training=False)
    x = keras.layers.Dense(4, use_bias=False)(x)
    x = keras.layers.Activation(activation, dtype="float32")(x)
    return keras.Model(image, x)


def pooled_outside():
    image = keras.Input((24, 20, 3))
    x = body(pooling=None)(keras.layers.GaussianNoise(0.9)(image))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(1, "sigmoid")(x))


def twice():
    """A block that is applied twice, in a model that is applied twice."""
    model = convmixer()
    image = keras.Input((24, 20, 3))
    x = model.get_layer("patch_embed")(model.get_layer("normalization")(image))
    inner = keras.Sequential([model.get_layer("block_0")])
    x = inner(inner(x))
    return keras.Model(image, keras.layers.GlobalMaxPooling2D()(x))


WRAPPED = {
    "sequential": sequential,
    "functional": lambda: functional("softmax"),
    "sigmoid": lambda: functional("sigmoid"),
    "maximum pooling": lambda: functional("softmax", "max"),
    "one output": pooled_outside,
    "twice": twice,
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_convmixer_within_a_model(tmp_path, name):
    model = WRAPPED[name]()
    expected = model(IMAGES, training=False)
    assert relative_difference(onnx(model, tmp_path), expected) < 1e-5
    deployed = deploy(model, "litert_int8")
    assert relative_difference(deployed(IMAGES), expected) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_wrapped_model_in_half_precision(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    model = sequential(dtype="float32")
    keras.config.set_dtype_policy("float32")
    expected = model(IMAGES, training=False)
    outputs = [export(model, tmp_path) for export in (onnx, tflite)]
    for found in outputs:
        assert np.abs(found - expected).max() < 0.03
    assert relative_difference(*outputs) < 1e-5


def test_a_wrapped_model_without_preprocessing(tmp_path):
    model = sequential(include_preprocessing=False)
    for export in (onnx, tflite, saved_model):
        with pytest.raises(ValueError, match="include_preprocessing=True"):
            export(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def two_outputs():
    model = convmixer()
    outputs = {"p": model.output, "f": model.get_layer("avg_pool").output}
    return keras.Model(model.input, outputs)


def deep():
    return keras.Sequential(
        [body(), keras.layers.Dense(8, "relu"), keras.layers.Dense(4)]
    )


def monte_carlo():
    class AlwaysDropout(keras.layers.Dropout):
        def call(self, inputs, training=None):
            return super().call(inputs, training=True)

    return keras.Sequential([body(), AlwaysDropout(0.1), keras.layers.Dense(4)])


def cropped():
    image = keras.Input((28, 28, 3))
    x = keras.layers.RandomCrop(24, 20)(image)
    return keras.Model(image, keras.layers.Dense(4)(body()(x)))


@pytest.mark.slow
@pytest.mark.parametrize("build", [two_outputs, deep, monte_carlo, cropped])
def test_what_can_only_be_exported_plain(tmp_path, build):
    model = build()
    for export in (onnx, tflite):
        with pytest.raises(ValueError, match=r"pass plain=True to `export_tf"):
            export(model, tmp_path)
    assert list(tmp_path.iterdir()) == []
    if build is deep:
        expected = model(IMAGES)
        for export in (onnx_plain, tflite_plain):
            outputs = export(model, tmp_path)
            assert relative_difference(outputs, expected) < 1e-5


@pytest.mark.parametrize(
    "activation",
    [keras.activations.softmax, lambda x: x / keras.ops.max(x)],
)
def test_an_activation_over_the_channels(activation):
    """Channels are computed in groups, so it would apply to each group."""
    with pytest.raises(ValueError, match="element-wise"):
        deploy(convmixer(activation=activation), "litert_int8")


def test_other_normalizations():
    model = convmixer()
    image = keras.Input((24, 20, 3))
    adapted = keras.layers.Normalization()
    adapted.adapt(IMAGES)
    x = image
    for layer in (adapted, *model.layers[2:]):
        if layer.name == "block_0":
            layer.depthwise_norm.scale = False
            layer.depthwise_norm.gamma.assign(np.ones(16))
            layer.pointwise_norm.center = False
            layer.pointwise_norm.beta.assign(np.zeros(16))
        x = layer(x)
    model = keras.Model(image, x)
    assert relative_difference(deploy(model)(IMAGES), model(IMAGES)) < 1e-5


def normalized(layer, shape=(24, 20, 3)):
    """A ConvMixer after `layer`."""
    image = keras.Input(shape)
    body = convmixer(include_preprocessing=False, input_shape=shape)
    return keras.Model(image, body(layer(image)))


def statistics(*shape):
    generator = np.random.default_rng(0)
    return {
        "mean": generator.uniform(50, 150, shape),
        "variance": generator.uniform(1000, 4000, shape),
    }


NORMALIZATIONS = {
    "channels": {"axis": -1, **statistics(3)},
    "rows": {"axis": 1, **statistics(24)},
    "columns and channels": {"axis": (2, 3), **statistics(20, 3)},
    "all": {"axis": None, "mean": 100.0, "variance": 3000.0},
    "nothing varies": {"mean": [9.0, 9, 9], "variance": [4.0, 0, 1e4]},
    "inverted": {"invert": True, **statistics(3)},
}


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_normalization_in_plain_onnx(tmp_path, kind):
    model = normalized(keras.layers.Normalization(**NORMALIZATIONS[kind]))
    outputs = onnx_plain(model, tmp_path)
    # The inverse makes pixels of up to 16,000: float32 has fewer digits left.
    assert relative_difference(outputs, model(IMAGES)) < 1e-4


def test_normalization_whatever_the_global_data_format(tmp_path):
    model = normalized(keras.layers.Normalization(**statistics(3)))
    expected = model(IMAGES)
    keras.config.set_image_data_format("channels_first")
    try:
        outputs = onnx_plain(model, tmp_path)
    finally:
        keras.config.set_image_data_format("channels_last")
    assert relative_difference(outputs, expected) < 1e-5


def test_normalization_of_a_channel_that_does_not_vary():
    arguments = NORMALIZATIONS["nothing varies"]
    model = normalized(keras.layers.Normalization(**arguments))
    assert relative_difference(deploy(model)(IMAGES), model(IMAGES)) < 1e-5


def test_normalization_of_rows():
    """There are as many rows as channels."""
    layers = (
        keras.layers.Normalization(axis=1, **statistics(4)),
        keras.layers.Rescaling(np.ones((4, 1, 1)).tolist()),
    )
    for layer in layers:
        model = normalized(layer, (4, 20, 4))
        with pytest.raises(ValueError, match="per channel or over"):
            deploy(model)


def test_channels_first_within_another_model(tmp_path):
    keras.config.set_image_data_format("channels_first")
    try:
        body = convmixer(input_shape=(3, 24, 20))
        model = keras.Sequential([keras.Input((3, 24, 20)), body])
    finally:
        keras.config.set_image_data_format("channels_last")
    for export in (onnx_plain, saved_model):
        with pytest.raises(ValueError, match="must be channels-last"):
            export(model, tmp_path)
    assert list(tmp_path.iterdir()) == []
