"""Tests the layer that normalizes pixels: in files, old files and ONNX."""

import keras
import numpy as np
import pytest
from keras import layers

from convmixer_tf.export import deploy
from convmixer_tf.models import ConvMixer
from convmixer_tf.models.normalization import normalization
from convmixer_tf.models.normalization import statistics_in
from convmixer_tf.models.rebuilding import read_arguments
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import relative_difference

MEAN, STD = (0.3, 0.4, 0.5), (0.1, 0.2, 0.3)
SIZES = {"dim": 8, "depth": 2, "kernel_size": 3, "patch_size": 4}


def _model(shape=(12, 8, 3), **arguments):
    arguments = {"classes": 4, **SIZES, **arguments}
    return randomize(ConvMixer(**arguments, input_shape=shape))


def _old_layer():
    """The layer of earlier versions."""
    return layers.Normalization(
        mean=[255 * mean for mean in MEAN],
        variance=[(255 * std) ** 2 for std in STD],
        dtype="float32",
        name="normalization",
    )


def _with(preprocess, model):
    """Copies a model with another first layer."""
    copy = keras.models.clone_model(
        model,
        clone_function=lambda layer: (
            preprocess
            if layer.name == "normalization"
            else type(layer).from_config(layer.get_config())
        ),
    )
    for new, old in zip(copy.layers[2:], model.layers[2:], strict=True):
        new.set_weights(old.get_weights())
    return copy


@pytest.fixture
def _channels_first():
    keras.config.set_image_data_format("channels_first")


def _onnx_outputs(model, images, path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    model(images)  # Keras' exporter requires a model that was called.
    model.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(str(path))
    assert len(session.get_inputs()) == 1
    (outputs,) = session.run(None, {session.get_inputs()[0].name: images})
    return outputs


# From tf2onnx, about future NumPy names.
@pytest.mark.filterwarnings("ignore:In the future:FutureWarning")
@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (3, {}),
        (1, {}),
        (12, {}),
        (3, {"mean": MEAN, "std": STD}),
        (3, {"include_preprocessing": False}),
    ],
    ids=str,
)
def test_onnx_files_of_keras_own_exporter(channels, options, tmp_path):
    model = _model((12, 8, channels), **options)
    images = np.float32(asymmetric_image(12, 8, channels))
    outputs = _onnx_outputs(model, images, tmp_path / "model.onnx")
    assert relative_difference(outputs, model(images)) < 1e-5


@pytest.mark.filterwarnings("ignore:In the future:FutureWarning")
@pytest.mark.usefixtures("_channels_first")
def test_onnx_files_of_keras_own_exporter_channels_first(tmp_path):
    model = _model((3, 12, 8), mean=MEAN, std=STD)
    images = np.float32(asymmetric_image(12, 8).transpose(0, 3, 1, 2))
    outputs = _onnx_outputs(model, images, tmp_path / "model.onnx")
    assert relative_difference(outputs, model(images)) < 1e-5


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("channels", [1, 3, 12])
def test_each_channel_has_its_own_scale_and_offset(channels, data_format):
    keras.config.set_image_data_format(data_format)
    mean, std = np.linspace(0.1, 0.9, channels), np.linspace(0.5, 2, channels)
    # As many columns as channels, to detect confused axes.
    images = asymmetric_image(5, channels, channels)
    expected = (images / 255 - mean) / std
    shape = images.shape[1:]
    if data_format == "channels_first":
        images, expected = (x.transpose(0, 3, 1, 2) for x in (images, expected))
        shape = images.shape[1:]
    layer = normalization(shape, list(mean), list(std))
    np.testing.assert_allclose(layer(images), expected, atol=1e-5)
    np.testing.assert_allclose(
        statistics_in(layer.get_config()), [mean, std], rtol=1e-12
    )
    # A file is complete: global settings change nothing.
    keras.config.set_image_data_format("channels_first")
    again = keras.layers.Rescaling.from_config(layer.get_config())
    np.testing.assert_array_equal(again(images), layer(images))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_pixels_are_normalized_in_single_precision(policy):
    keras.config.set_dtype_policy(policy)
    layer = _model().get_layer("normalization")
    assert layer.compute_dtype == layer(np.ones((1, 2, 2, 3))).dtype


def test_files_of_before(tmp_path):
    old = _with(_old_layer(), _model())
    images = np.float32(asymmetric_image(12, 8))
    path = tmp_path / "model.keras"
    old.save(path)
    old.save_weights(tmp_path / "model.weights.h5")

    opened = keras.saving.load_model(path)
    np.testing.assert_array_equal(opened(images), old(images))
    arguments = read_arguments(path)
    np.testing.assert_allclose(arguments["mean"], MEAN)
    np.testing.assert_allclose(arguments["std"], STD)
    again = ConvMixer(**arguments, weights=path, classes=4)
    assert relative_difference(again(images), old(images)) < 1e-6
    with pytest.raises(ValueError, match=r"has std=\[0.1, 0.2, 0.3\]"):
        ConvMixer(**{**arguments, "std": STD[::-1]}, weights=path, classes=4)
    again.set_weights([0 * weight for weight in again.get_weights()])
    again.load_weights(tmp_path / "model.weights.h5")
    assert relative_difference(again(images), old(images)) < 1e-6


@pytest.mark.parametrize("name", ["old", "new"])
def test_both_are_folded_for_deployment(name):
    model = _model(mean=MEAN, std=STD)
    if name == "old":
        model = _with(_old_layer(), _model())
    images = np.float32(asymmetric_image(12, 8))
    deployed = deploy(model)
    assert relative_difference(deployed(images), model(images)) < 1e-5


def test_one_number_for_all_channels_is_folded():
    model = _with(layers.Rescaling(1 / 127.5, -1), _model())
    images = np.float32(asymmetric_image(12, 8))
    assert relative_difference(deploy(model)(images), model(images)) < 1e-5


def test_other_preprocessing_is_not_folded():
    columns = layers.Rescaling(np.linspace(0.1, 1, 8)[:, None].tolist())
    with pytest.raises(ValueError, match="per channel or over all pixels"):
        deploy(_with(columns, _model()))
