"""Tests that classifiers of all formats match their Keras model."""

import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import export_saved_model
from convmixer_tf.export import export_tfhub
from convmixer_tf.export import export_tflite
from convmixer_tf.export.metadata import TFLiteMetadata
from convmixer_tf.export.metadata import write_metadata
from convmixer_tf.inference.classifiers import load_classifier
from convmixer_tf.inference.classifiers import load_features
from convmixer_tf.models import ConvMixer
from convmixer_tf.models import ConvMixer256_8
from convmixer_tf.models import save_model
from convmixer_tf.preprocessing import CIFAR10_CLASSES
from convmixer_tf.weights import packaged
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import relative_difference
from tests.helpers import write_packaged

NAMES = ("ant", "bee", "élan")
IMAGES = np.float32(asymmetric_image(24, 24, batch=3))


@pytest.fixture(scope="module")
def model():
    return randomize(ConvMixer(8, 1, 3, 4, input_shape=(24, 24, 3), classes=3))


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """One file of each format, and invalid models."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "run").mkdir()
    save_model(model, folder / "run" / "model.keras", NAMES, 0.5, "stored")
    shutil.copy(folder / "run" / "model.keras", folder / "named.keras")
    model.save(folder / "plain.keras")
    said = {
        "class_names": NAMES,
        "crop_fraction": 0.5,
        "orientation": "stored",
    }
    export_saved_model(model, folder / "saved_model", **said)
    model.export(folder / "foreign", verbose=False)
    export_tfhub(model, folder / "module", **said)
    export_tflite(model, folder / "named.tflite", **said)
    export_tflite(model, folder / "silent.tflite")
    (folder / "model.onnx").write_text("no such thing")
    (folder / "broken.keras").write_text("no model")
    (folder / "empty").mkdir()
    return folder


@pytest.mark.parametrize(
    ("name", "names", "crop_fraction"),
    [
        ("run", NAMES, 0.5),
        ("named.keras", NAMES, 0.5),
        ("plain.keras", None, 0.96),
        ("saved_model", NAMES, 0.5),
        ("foreign", None, 0.96),
        ("module", NAMES, 0.5),
        ("named.tflite", NAMES, 0.5),
        ("silent.tflite", None, 0.96),
    ],
)
def test_every_kind(model, files, name, names, crop_fraction, caplog):
    found = load_classifier(files / name)
    said = f"{name}` does not say how images are read. Using defaults: "
    said += "--crop_fraction 0.96, --orientation exif"
    assert (said in caplog.text) == (names is None)
    assert found.orientation == ("stored" if names else "exif")
    assert (found.classes, found.image_size) == (3, 24)
    assert (found.class_names, found.crop_fraction) == (names, crop_fraction)
    expected = model.predict(IMAGES, verbose=0)
    for count in (3, 1):  # The last batch may be smaller.
        actual = found.predict(IMAGES[:count])
        assert relative_difference(actual, expected[:count]) < 1e-4


def test_a_crop_that_is_given(files, caplog):
    for name in ("named.tflite", "silent.tflite"):
        found = load_classifier(files / name, None, 0.7, "exif")
        assert (found.crop_fraction, found.orientation) == (0.7, "exif")
    assert not caplog.text
    with pytest.raises(ValueError, match="`orientation` must be one of"):
        load_classifier(files / "named.tflite", orientation="upright")
    with pytest.raises(ValueError, match=r"`crop_fraction` must be from 0\.01"):
        load_classifier(files / "named.tflite", crop_fraction=0.0)


@pytest.mark.parametrize("text", ["{}", "1", '{"crop_fraction": 2}', "no"])
def test_a_crop_that_is_none(files, tmp_path, text):
    shutil.copytree(files / "saved_model", tmp_path / "model")
    path = tmp_path / "model" / "assets.extra" / "evaluation.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="must hold a `crop_fraction` from"):
        load_classifier(tmp_path / "model")


def test_a_single_output_of_unknown_meaning(tmp_path):
    """A ReLU that the converter fuses into the last operator."""
    images = keras.Input((24, 24, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(images)
    model = keras.Model(images, keras.layers.Dense(1, "relu")(pooled))
    path = tmp_path / "model.tflite"
    export_tflite(model, path, plain=True)
    with pytest.raises(ValueError, match="Cannot determine whether the class"):
        load_classifier(path)


def test_a_file_from_before_orientations(files, tmp_path, caplog):
    shutil.copytree(files / "saved_model", tmp_path / "model")
    path = tmp_path / "model" / "assets.extra" / "evaluation.json"
    path.write_text('{"crop_fraction": 0.5}')
    found = load_classifier(tmp_path / "model")
    assert (found.crop_fraction, found.orientation) == (0.5, "exif")
    assert "images are read. Using defaults: --orientation exif" in caplog.text


def test_a_variant(tmp_path, monkeypatch):
    model = randomize(ConvMixer256_8(weights=None))
    write_packaged(model, tmp_path)
    monkeypatch.setattr(packaged, "FOLDER", tmp_path)
    found = load_classifier("256_8")
    assert (found.classes, found.image_size) == (10, 32)
    assert (found.class_names, found.crop_fraction) == (CIFAR10_CLASSES, 1.0)
    images = np.float32(asymmetric_image(32, 32))
    expected = model.predict(images, verbose=0)
    assert relative_difference(found.predict(images), expected) < 0.02


@pytest.mark.slow
def test_a_file_of_weights(tmp_path):
    model = randomize(ConvMixer256_8(weights=None))
    model.save_weights(tmp_path / "a.weights.h5")
    found = load_classifier(tmp_path / "a.weights.h5", image_size=32)
    assert (found.classes, found.class_names) == (10, None)
    images = np.float32(asymmetric_image(32, 32))
    expected = model.predict(images, verbose=0)
    assert relative_difference(found.predict(images), expected) < 1e-4


def test_features_are_what_the_classifier_gets(model, files):
    found = load_features(files / "named.keras")
    body = keras.Model(model.inputs, model.get_layer("avg_pool").output)
    expected = body.predict(IMAGES, verbose=0)
    assert relative_difference(found.predict(IMAGES), expected) < 1e-4
    assert (found.classes, found.crop_fraction) == (8, 0.5)
    with pytest.raises(ValueError, match="Features are computed by Keras mod"):
        load_features(files / "named.tflite")


def test_a_model_of_any_size(tmp_path):
    model = ConvMixer(8, 1, 3, 4, input_shape=(None, None, 3), classes=3)
    model.save(tmp_path / "any.keras")
    assert load_classifier(tmp_path / "any.keras").image_size == 224
    small = load_classifier(tmp_path / "any.keras", 16)
    assert small.predict(np.zeros((2, 16, 16, 3), "float32")).shape == (2, 3)


WAYS = {
    "model.keras": lambda model, path: model.save(path),
    "saved_model": export_saved_model,
    "foreign": lambda model, path: model.export(path, verbose=False),
    "model.tflite": export_tflite,
}


def export(model, folder, ways=tuple(WAYS)):
    """Saves a model in some ways; returns the paths."""
    for name in ways:
        WAYS[name](model, folder / name)
    return [folder / name for name in ways]


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_probabilities_are_as_the_model_means_them(tmp_path, activation):
    """All outputs are in [0, 1], and no row adds up to 1."""
    arguments = {"input_shape": (24, 24, 3), "classes": 2}
    arguments["classifier_activation"] = activation
    model = randomize(ConvMixer(8, 1, 3, 4, **arguments))
    kernel, _ = model.layers[-1].get_weights()
    model.layers[-1].set_weights([0.01 * kernel, np.array([0.4, 0.8])])
    outputs = model.predict(IMAGES, verbose=0)
    expected = outputs
    if activation is None:
        assert outputs.min() > 0
        assert outputs.max() < 1
        expected = special.softmax(outputs, -1)
    for path in export(model, tmp_path):
        actual = load_classifier(path).predict(IMAGES)
        assert relative_difference(actual, expected) < 1e-4, path


def test_quantized_probabilities_need_not_add_up_to_1(tmp_path):
    arguments = {"input_shape": (24, 24, 3), "classes": 500}
    model = randomize(ConvMixer(8, 1, 3, 4, **arguments))
    model.layers[-1].set_weights([x / 20 for x in model.layers[-1].weights])
    path = tmp_path / "int8.tflite"
    options = {
        "quantization": "int8",
        "output_dtype": "uint8",
        "calibration_images": asymmetric_image(24, 24, batch=16),
    }
    export_tflite(model, path, **options)
    actual = load_classifier(path).predict(IMAGES)
    assert abs(actual.sum(-1) - 1).max() > 0.1
    expected = model.predict(IMAGES, verbose=0)
    assert abs(actual - expected).max() < 0.01


@pytest.mark.parametrize(
    ("activation", "ways"),
    [
        (None, ("saved_model", "foreign")),
        ("sigmoid", ("model.keras", "model.tflite")),
        ("hard_sigmoid", ("model.keras",)),
    ],
)
def test_a_single_output_is_a_class_and_its_opposite(
    tmp_path, activation, ways
):
    arguments = {"input_shape": (24, 24, 3), "classes": 1}
    arguments["classifier_activation"] = activation
    model = randomize(ConvMixer(8, 1, 3, 4, **arguments))
    outputs = np.float64(model.predict(IMAGES, verbose=0))
    chance = outputs if activation else special.expit(outputs)
    expected = np.concatenate([1 - chance, chance], -1)
    for path in export(model, tmp_path, ways):
        found = load_classifier(path)
        assert (found.classes, found.class_names) == (2, None)
        actual = found.predict(IMAGES)
        np.testing.assert_allclose(actual, expected, atol=1e-5)
        assert found.renamed(["cat"]).class_names == ("not cat", "cat")
        assert found.renamed(["cat", "dog"]).class_names == ("cat", "dog")
        with pytest.raises(
            ValueError, match=r"2 classes, but there are 3 class names"
        ):
            found.renamed(NAMES)


def test_a_dense_layer_on_features_gives_one_logit(tmp_path):
    body = ConvMixer(8, 1, 3, 4, input_shape=(24, 24, 3), include_top=False)
    pool = keras.layers.GlobalAveragePooling2D()
    model = keras.Sequential([body, pool, keras.layers.Dense(1)])
    save_model(randomize(model), tmp_path / "model.keras", ["a", "b"], 1.0)
    found = load_classifier(tmp_path / "model.keras")
    assert found.class_names == ("a", "b")
    chance = special.expit(model.predict(IMAGES, verbose=0))
    actual = found.predict(IMAGES)
    np.testing.assert_allclose(actual[:, 1:], chance, rtol=1e-5)
    np.testing.assert_allclose(actual.sum(-1), 1, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:.*softmax over axis")
def test_softmax_over_one_output_is_refused(tmp_path):
    image = keras.Input((24, 24, 3))
    x = keras.layers.GlobalAveragePooling2D()(image)
    model = keras.Model(image, keras.layers.Dense(1, "softmax")(x))
    for path in export_foreign(model, tmp_path):
        with pytest.raises(ValueError, match="one output must not end in soft"):
            load_classifier(path)


def export_foreign(model, folder):
    """Saves a model in formats without requirements; returns the paths."""
    model.save(folder / "model.keras")
    model.export(folder / "foreign", verbose=False)
    return folder / "model.keras", folder / "foreign"


@pytest.mark.parametrize("kind", ["softmax", "linear", "neither"])
def test_an_end_that_is_not_known(tmp_path, kind):
    """Test images determine it once for all images, or it is an error."""
    image = keras.Input((24, 24, 3))
    x = keras.layers.GlobalAveragePooling2D()(image)
    x = keras.layers.Rescaling(1 / 255)(x)
    if kind == "softmax":
        total = keras.ops.sum(x, axis=-1, keepdims=True)
        x = (x + 0.1) / (total + 0.3)
    if kind == "linear":
        x = keras.layers.Rescaling(2.0, offset=-0.5)(x)
    model = keras.Model(image, keras.layers.Flatten()(x))
    images = np.zeros((2, 24, 24, 3), "float32")
    # The first image's outputs happen to add up to 1.
    images[0], images[1] = (204, 127.5, 51), (255, 0, 255)
    expected = model.predict(images, verbose=0)
    if kind == "linear":
        expected = special.softmax(expected, -1)
    for path in export_foreign(model, tmp_path):
        if kind == "neither":
            with pytest.raises(ValueError, match="Cannot determine whether"):
                load_classifier(path)
            continue
        actual = load_classifier(path).predict(images)
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_names_must_fit_the_classes(model, tmp_path):
    save_model(model, tmp_path / "model.keras", ["a", "b"], 1.0)
    with pytest.raises(
        ValueError, match=r"has 3 classes, but there are 2 class names"
    ):
        load_classifier(tmp_path / "model.keras")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pooling", "ways"),
    [(None, ("model.keras", "model.tflite")), ("avg", WAYS)],
)
def test_features_are_no_scores(tmp_path, pooling, ways):
    options = {"include_top": False, "pooling": pooling}
    model = ConvMixer(8, 1, 3, 4, input_shape=(24, 24, 3), **options)
    for path in export(model, tmp_path, ways):
        with pytest.raises(
            ValueError, match="must be a classifier with outputs"
        ):
            load_classifier(path)


def test_a_fixed_batch(tmp_path):
    inputs = keras.Input(batch_shape=(2, 24, 24, 3))
    model = ConvMixer(8, 1, 3, 4, input_tensor=inputs, classes=3)
    model.save(tmp_path / "model.keras")
    model.export(tmp_path / "saved_model", verbose=False)
    expected = np.concatenate([model(IMAGES[:2]), model(IMAGES[1:])[1:]])
    for name in ("model.keras", "saved_model"):
        actual = load_classifier(tmp_path / name).predict(IMAGES)
        assert relative_difference(actual, expected) < 1e-5


def test_channels_first(files):
    keras.config.set_image_data_format("channels_first")
    for name in ("256_8", files / "named.keras"):
        with pytest.raises(ValueError, match="data format is channels_first"):
            load_classifier(name)
    assert load_classifier(files / "saved_model").classes == 3


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("gone", FileNotFoundError, r"or one of 1536_20, .*256_8. Received: "),
        (
            "model.onnx",
            ValueError,
            r"a \.keras or \.tflite file, a file of wei",
        ),
        ("broken.keras", ValueError, "Cannot read a model from .*broken.keras"),
        ("empty", ValueError, "Cannot read a model from .*empty"),
    ],
)
def test_what_is_no_model(files, name, error, message):
    with pytest.raises(error, match=message):
        load_classifier(files / name)


@pytest.mark.parametrize("name", ["named.keras", "named.tflite", "saved_model"])
def test_another_size(files, name):
    with pytest.raises(ValueError, match=r"takes images of 24 x 24 .*size=16"):
        load_classifier(files / name, 16)


def test_models_of_something_else(tmp_path):
    gray = ConvMixer(8, 1, 3, 4, input_shape=(24, 24, 1), classes=3)
    gray.save(tmp_path / "gray.keras")
    inputs = keras.Input((4,))
    dense = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    dense.save(tmp_path / "dense.keras")
    for name in ("gray", "dense"):
        with pytest.raises(ValueError, match="must take images of 3 channels"):
            load_classifier(tmp_path / f"{name}.keras")
    module = tf.Module()
    module.call = tf.function(lambda x: x)
    tf.saved_model.save(module, tmp_path / "no_signature")
    with pytest.raises(ValueError, match="no signature 'serving_default'"):
        load_classifier(tmp_path / "no_signature")


def test_a_file_that_wants_other_pixels(files, tmp_path):
    path = tmp_path / "normalized.tflite"
    shutil.copy(files / "named.tflite", path)
    write_metadata(path, TFLiteMetadata("Toy", mean=(127.5,), std=(127.5,)))
    with pytest.raises(ValueError, match=r"must take pixels in .0, 255.\."):
        load_classifier(path)
    raw = ConvMixer(
        *(8, 1, 3, 4),
        input_shape=(24, 24, 3),
        classes=3,
        include_preprocessing=False,
    )
    raw.save(tmp_path / "raw.keras")
    with pytest.raises(ValueError, match=r"must take pixels in .0, 255.\. Bu"):
        load_classifier(tmp_path / "raw.keras")


@pytest.mark.parametrize("crop_fraction", [None, 0.5])
def test_a_module_whose_white_is_1(model, tmp_path, crop_fraction):
    said = {"max_pixel": 1, "crop_fraction": crop_fraction}
    export_tfhub(model, tmp_path / "module", **said)
    found = load_classifier(tmp_path / "module")
    assert found.crop_fraction == (crop_fraction or 0.96)
    expected = model.predict(IMAGES, verbose=0)
    assert relative_difference(found.predict(IMAGES), expected) < 1e-4
    extra = tmp_path / "module" / "saved_model" / "assets.extra"
    (extra / "evaluation.json").write_text('{"max_pixel": 2}')
    with pytest.raises(ValueError, match="or a `max_pixel` of 1 or 255"):
        load_classifier(tmp_path / "module")


def test_threads_of_a_tflite_file(files, monkeypatch):
    """At most the number of cores and of TensorFlow's threads."""
    threads = []

    class Model(LiteRTModel):
        def __init__(self, path, num_threads):
            threads.append(num_threads)
            super().__init__(path, num_threads)

    monkeypatch.setattr("convmixer_tf.export.LiteRTModel", Model)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7}, False)
    load_classifier(files / "named.tflite")
    monkeypatch.setattr(
        tf.config.threading, "get_intra_op_parallelism_threads", lambda: 2
    )
    load_classifier(files / "named.tflite")
    assert threads == [3, 2]
