"""Tests that files of commit f1af6dd still open with the same outputs.

`fixtures/f1af6dd/README.md` says how the files were made.
"""

import json
import pathlib
import zipfile

import keras
import numpy as np
import pytest

from convmixer_tf import ConvMixer
from convmixer_tf import data
from convmixer_tf.export import HubLayer
from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import read_metadata
from convmixer_tf.inference.classifiers import load_classifier
from convmixer_tf.models import load_model
from convmixer_tf.models.additions import read_class_names
from convmixer_tf.models.additions import read_crop_fraction
from convmixer_tf.models.rebuilding import read_arguments
from convmixer_tf.training import TrainConfig
from convmixer_tf.training import train_classifier

FOLDER = pathlib.Path(__file__).parent / "fixtures" / "f1af6dd"
NAMES = ("cat", "größe", "two words")
# The class names and the crop fraction of every file.
KERAS_FILES = {
    "named.keras": (NAMES, 0.875),
    "relu_logits.keras": (NAMES, 1.0),
    "bands12.keras": (None, None),
    "gray_features.keras": (None, None),
    "frozen_remat.keras": (None, None),
    "mixed_bfloat16.keras": (None, None),
    "mixed_float16.keras": (None, None),
    "compiled.keras": (None, None),
    "quantized_int8.keras": (None, None),
    "blocks.keras": (None, None),
}
NO_CONVMIXERS = ("blocks.keras", "quantized_int8.keras")
# Half precision rounds each sum, and the order of sums may change. In float32,
# the same weights must give the same outputs.
TOLERANCES = {"mixed_bfloat16.keras": 2e-2, "mixed_float16.keras": 2e-3}
TFLITE_FILES = ("float32", "float16", "dynamic", "int8", "int4")


@pytest.fixture(scope="module")
def outputs():
    with np.load(FOLDER / "outputs.npz") as arrays:
        return dict(arrays)


def unzip(name, directory):
    with zipfile.ZipFile(FOLDER / f"{name}.zip") as archive:
        archive.extractall(directory / name)
    return directory / name


def assert_close(actual, expected, tolerance=1e-6):
    actual = np.float32(keras.ops.convert_to_numpy(actual))
    assert actual.shape == expected.shape
    scale = max(1, np.abs(expected).max())
    assert np.abs(actual - expected).max() <= tolerance * scale


def test_every_file_is_tested():
    names = {path.name for path in FOLDER.iterdir()}
    assert names == {
        *KERAS_FILES,
        *(f"{name}.tflite" for name in TFLITE_FILES),
        *("named.weights.h5", "bands12.weights.h5"),
        *("gray_features.weights.h5", "named.safetensors", "model.onnx"),
        *("saved_model.zip", "tfhub_classifier.zip"),
        *("tfhub_feature_vector.zip", "run_finished.zip", "run_stopped.zip"),
        *("outputs.npz", "README.md", "write.py.txt"),
    }


@pytest.mark.parametrize("name", KERAS_FILES)
def test_keras_file(name, outputs):
    path = FOLDER / name
    assert (read_class_names(path), read_crop_fraction(path)) == (
        KERAS_FILES[name]
    )
    images = np.float32(outputs[f"{name}/images"])
    actual = load_model(path)(images, training=False)
    assert_close(actual, outputs[f"{name}/outputs"], TOLERANCES.get(name, 1e-6))
    if name in NO_CONVMIXERS:
        return
    arguments = read_arguments(path)
    model = ConvMixer(**arguments, weights=path, include_top=False)
    assert_close(model(images, training=False), outputs[f"{name}/features"])


def test_frozen_layers_stay_frozen():
    model = load_model(FOLDER / "frozen_remat.keras")
    trained = {w.path.split("/")[0] for w in model.trainable_weights}
    assert trained == {"block_1", "block_2", "predictions"}
    assert not model.get_layer("patch_embed").trainable
    assert not model.get_layer("block_0").trainable
    assert model.get_layer("block_0").remat
    assert model.get_layer("block_2").drop_path == 0.2


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_precision_is_kept(policy):
    model = load_model(FOLDER / f"{policy}.keras")
    assert model.get_layer("block_0").dtype_policy.name == policy
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}


def test_compiled_model_goes_on_training(outputs):
    model = keras.saving.load_model(FOLDER / "compiled.keras")
    momenta = [v for v in model.optimizer.variables if "momentum" in v.path]
    assert int(model.optimizer.iterations) == 1
    assert len(momenta) == len(model.trainable_weights)
    for momentum, weight in zip(momenta, model.trainable_weights, strict=True):
        assert momentum.shape == weight.shape
        assert np.abs(keras.ops.convert_to_numpy(momentum)).max() > 0
    images = np.float32(outputs["compiled.keras/images"])
    assert np.isfinite(model.train_on_batch(images, np.arange(len(images))))
    assert int(model.optimizer.iterations) == 2


# Their models, and arguments that `read_arguments` does not return.
WEIGHTS_FILES = {
    "named.weights.h5": ("named.keras", {"classes": 3}),
    "named.safetensors": ("named.keras", {"classes": 3}),
    "bands12.weights.h5": (
        "bands12.keras",
        {"classes": 4, "classifier_activation": "sigmoid"},
    ),
    "gray_features.weights.h5": (
        "gray_features.keras",
        {"include_top": False, "pooling": "max"},
    ),
}


@pytest.mark.parametrize("name", WEIGHTS_FILES)
def test_weights_file(name, outputs):
    saved, head = WEIGHTS_FILES[name]
    arguments = read_arguments(FOLDER / saved)
    images = np.float32(outputs[f"{saved}/images"])
    model = ConvMixer(**arguments, **head, weights=FOLDER / name)
    assert_close(model(images, training=False), outputs[f"{saved}/outputs"])
    if name.endswith(".h5"):  # Keras' own way.
        model = ConvMixer(**arguments, **head)
        model.load_weights(FOLDER / name)
        assert_close(model(images, training=False), outputs[f"{saved}/outputs"])


@pytest.mark.parametrize("quantization", TFLITE_FILES)
def test_tflite_file(quantization, outputs):
    name = f"{quantization}.tflite"
    model = LiteRTModel(FOLDER / name)
    assert_close(
        model.predict(outputs[f"{name}/images"]), outputs[f"{name}/outputs"]
    )
    assert tuple(read_metadata(FOLDER / name).class_names) == NAMES
    classifier = load_classifier(FOLDER / name)
    assert tuple(classifier.class_names) == NAMES
    assert classifier.crop_fraction == 0.875


def test_onnx_file(outputs):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(FOLDER / "model.onnx")
    images = np.float32(outputs["model.onnx/images"])
    (actual,) = session.run(None, {"image": images})
    assert_close(actual, outputs["model.onnx/outputs"])


@pytest.mark.parametrize("name", ["saved_model", "tfhub_classifier"])
def test_folder_as_a_classifier(name, outputs, tmp_path):
    classifier = load_classifier(unzip(name, tmp_path))
    assert classifier.class_names == NAMES
    assert classifier.crop_fraction == 0.875
    images = np.float32(outputs[f"{name}/images"])
    # The module returns logits, the classifier probabilities.
    assert_close(classifier.predict(images), outputs["named.keras/outputs"])


@pytest.mark.parametrize("name", ["tfhub_classifier", "tfhub_feature_vector"])
def test_tfhub_module_as_a_layer(name, outputs, tmp_path):
    layer = HubLayer(unzip(name, tmp_path) / "saved_model")
    images = np.float32(outputs[f"{name}/images"])
    assert_close(layer(images, training=False), outputs[f"{name}/outputs"])
    assert layer.trainable_weights


def train(directory, strategy):
    def build(activation):
        return ConvMixer(
            *(8, 2, 3, 2),
            input_shape=(8, 8, 3),
            classes=10,
            classifier_activation=activation,
        )

    return train_classifier(
        TrainConfig(
            epochs=2,
            steps_per_epoch=2,
            batch_size=32,
            ema_decay=0.5,
            tensorboard=False,
            precision="float32",
        ),
        build,
        *(data.open_dataset("digits", split) for split in ("train", "test")),
        data.get_augmentation("none"),
        8,
        directory,
        strategy,
        crop_fraction=1.0,
    )


@pytest.mark.slow
def test_run_that_was_stopped_goes_on(outputs, tmp_path, one_device):
    directory = unzip("run_stopped", tmp_path)
    assert not (directory / "model.keras").exists()
    first_epoch = (directory / "log.csv").read_text()
    model, summary = train(directory, one_device)
    finished = unzip("run_finished", tmp_path)
    expected = json.loads((finished / "summary.json").read_text())
    assert summary["last"]["step"] == 4
    for key in ("loss", "top1"):
        assert summary["last"][key] == pytest.approx(
            expected["last"][key], rel=1e-4
        )
    # If it had restarted, the first epoch's seconds would differ.
    assert (directory / "log.csv").read_text().startswith(first_epoch)
    images = np.float32(outputs["run_finished/images"])
    assert_close(
        model(images, training=False), outputs["run_finished/outputs"], 1e-5
    )


def test_finished_run(outputs, tmp_path, one_device):
    directory = unzip("run_finished", tmp_path)
    classifier = load_classifier(directory)
    assert classifier.class_names == tuple("0123456789")
    assert classifier.crop_fraction == 1
    images = np.float32(outputs["run_finished/images"])
    assert_close(classifier.predict(images), outputs["run_finished/outputs"])
    expected = json.loads((directory / "summary.json").read_text())
    model, summary = train(directory, one_device)
    assert summary["last"] == expected["last"]
    assert_close(model(images, training=False), outputs["run_finished/outputs"])
