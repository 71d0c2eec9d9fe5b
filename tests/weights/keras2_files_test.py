"""Tests reading keras-cv's ConvMixer files: valid, damaged and other files.

`keras_cv_model.py` wrote the files and computed their outputs.
"""

import gzip
import pathlib

import h5py
import keras
import numpy as np
import pytest

from convmixer_tf.layers.conv_act_norm import batch_norm
from convmixer_tf.models import ConvMixer
from convmixer_tf.weights import load_weights
from convmixer_tf.weights import read_weights
from convmixer_tf.weights import save_timm_weights
from convmixer_tf.weights.checking import Architecture
from convmixer_tf.weights.checking import infer_architecture
from convmixer_tf.weights.keras2_files import EPSILON
from convmixer_tf.weights.keras2_files import KERAS_EPSILON
from tests.helpers import relative_difference
from tests.weights.damage import check_flipped_bytes
from tests.weights.samples import assert_same
from tests.weights.samples import model_weights

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures" / "keras_cv"
ARCHITECTURE = Architecture(
    dim=4, depth=2, kernel_size=8, patch_size=7, channels=3, classes=5
)
# In the file with the classifier.
NORM = "batch_normalization_9/batch_normalization_9"
CONV = "conv2d_3/conv2d_3"


@pytest.fixture
def path(tmp_path):
    """A copy of the file with the classifier, to be damaged."""
    return unpack("top", tmp_path)


@pytest.fixture(scope="module")
def outputs():
    with np.load(FIXTURES / "outputs.npz") as file:
        return dict(file)


def unpack(name, folder):
    path = folder / f"{name}.h5"
    path.write_bytes(gzip.decompress((FIXTURES / f"{name}.h5.gz").read_bytes()))
    return path


def build(**kwargs):
    """Builds our ConvMixer of the fixtures' architecture."""
    arguments = {
        "dim": ARCHITECTURE.dim,
        "depth": ARCHITECTURE.depth,
        "kernel_size": ARCHITECTURE.kernel_size,
        "patch_size": ARCHITECTURE.patch_size,
        "classes": ARCHITECTURE.classes,
        "classifier_activation": None,
        "input_shape": (None, None, 3),
        "mean": 0.0,
        "std": 1.0,
    }
    return ConvMixer(**{**arguments, **kwargs})


def test_gives_the_logits_of_keras_cv(path, outputs):
    model = build(weights=path)
    logits = model.predict(outputs["images"], verbose=0)
    assert relative_difference(logits, outputs["logits"]) < 1e-5


@pytest.mark.parametrize("name", ["top", "no_top"])
def test_gives_the_features_of_keras_cv(tmp_path, name, outputs):
    model = build(weights=unpack(name, tmp_path), include_top=False)
    features = model.predict(outputs["images"], verbose=0)
    # 7 x 5 patches, so every output of the 8 x 8 kernels sees a border.
    assert features.shape == (2, 7, 5, 4)
    assert relative_difference(features, outputs["features"]) < 1e-5


def test_without_the_difference_of_the_epsilons_it_would_show(path, outputs):
    model = build(weights=path)
    for weight in model.weights:
        if weight.path.endswith("moving_variance"):
            weight.assign(weight - (KERAS_EPSILON - EPSILON))
    logits = model.predict(outputs["images"], verbose=0)
    assert relative_difference(logits, outputs["logits"]) > 0.01


def test_epsilons():
    assert keras.layers.BatchNormalization().epsilon == KERAS_EPSILON
    assert batch_norm("channels_last", "float32", "norm").epsilon == EPSILON


def test_reads_every_weight(path):
    weights = read_weights(path)
    assert infer_architecture(weights) == ARCHITECTURE
    assert {x.dtype.name for x in weights.values()} == {"float32"}
    with h5py.File(path) as h5:
        variance = h5[f"{NORM}/moving_variance:0"][()]
        kernel = h5[f"{CONV}/kernel:0"][()]
    moved = weights["block_1/pointwise_norm/moving_variance"]
    np.testing.assert_allclose(moved, np.float64(variance) + 0.00099, rtol=1e-7)
    np.testing.assert_array_equal(weights["patch_embed/conv/kernel"], kernel)


def test_without_top_it_holds_no_classifier(tmp_path):
    weights = read_weights(unpack("no_top", tmp_path))
    assert infer_architecture(weights).classes is None


def test_names_as_early_h5py_wrote_them(path):
    expected = read_weights(path)
    with h5py.File(path, "a") as h5:
        for group in (h5, *h5.values()):
            for name, value in group.attrs.items():
                if name in ("layer_names", "weight_names"):
                    group.attrs[name] = np.array([*value], "S")
        assert h5.attrs["layer_names"].dtype.kind == "S"
    assert_same(read_weights(path), expected)


def test_file_of_a_whole_model(path, tmp_path):
    whole = tmp_path / "model.h5"
    with h5py.File(path) as source, h5py.File(whole, "w") as h5:
        source.copy(source, h5, "model_weights")
        h5.attrs["model_config"] = "not even JSON"
    assert_same(read_weights(whole), read_weights(path))


def test_half_precision_is_raised_before_it_rounds(path):
    with h5py.File(path, "a") as h5:
        group = h5[NORM]
        del group["moving_variance:0"]
        group["moving_variance:0"] = np.full(4, 1.0, "float16")
    moved = read_weights(path)["block_1/pointwise_norm/moving_variance"]
    np.testing.assert_array_equal(moved, np.full(4, 1.00099, "float32"))


def test_converts_to_timm(path, tmp_path, outputs):
    save_timm_weights(build(weights=path), tmp_path / "small.safetensors")
    model = build(weights=tmp_path / "small.safetensors")
    logits = model.predict(outputs["images"], verbose=0)
    assert relative_difference(logits, outputs["logits"]) < 1e-5


def replace(path, name, value):
    """Replaces an array in the file, or removes it with `None`."""
    with h5py.File(path, "a") as h5:
        del h5[name]
        if value is not None:
            h5[name] = value


def relist(path, attribute, change, group="/"):
    """Changes a list of names in the file."""
    with h5py.File(path, "a") as h5:
        names = change([*h5[group].attrs[attribute]])
        h5[group].attrs[attribute] = names


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda path: relist(path, "layer_names", lambda x: x[:-3]),
            "layer `depthwise_conv2d_3` has .* where `predictions` has",
        ),
        (
            lambda path: relist(path, "layer_names", lambda x: x[::-1]),
            "`conv2d_5` has the weights kernel, bias, where "
            "`block_0/depthwise` has depthwise_kernel, bias",
        ),
        (
            lambda path: relist(path, "layer_names", lambda x: x[:1]),
            "it has 0 layers with weights",
        ),
        (
            lambda path: relist(path, "layer_names", lambda x: [*x, "gone"]),
            "is a link",
        ),
        (
            lambda path: relist(
                path, "weight_names", lambda x: x[:3], "batch_normalization_5"
            ),
            "`batch_normalization_5` has the weights gamma, beta, moving_mean,",
        ),
        (
            lambda path: replace(path, f"{NORM}/gamma:0", None),
            "gamma:0` is a link",
        ),
        (
            lambda path: replace(
                path,
                f"{CONV}/bias:0",
                h5py.ExternalLink("other.h5", "bias"),
            ),
            "bias:0` is a link",
        ),
        (
            lambda path: replace(path, f"{CONV}/bias:0", np.zeros((4, 1), "f")),
            r"`patch_embed/conv/bias` must have 1 axes.*\(4, 1\)",
        ),
        (
            lambda path: replace(path, f"{CONV}/bias:0", np.zeros(4, "int32")),
            "`patch_embed/conv/bias` must hold floating-point",
        ),
        (
            lambda path: replace(
                path, f"{NORM}/moving_variance:0", np.zeros(4, "int32")
            ),
            "moving_variance` must hold floating-point",
        ),
        (
            lambda path: replace(
                path, f"{NORM}/moving_variance:0", np.full(4, np.nan, "f")
            ),
            "values that are not finite, in block_1/pointwise_norm/moving_var",
        ),
        (
            lambda path: replace(
                path, f"{NORM}/moving_variance:0", np.full(4, -0.1, "f")
            ),
            "a moving variance below zero",
        ),
    ],
)
def test_damage(path, damage, message):
    damage(path)
    with pytest.raises(ValueError, match=message):
        read_weights(path)


def test_another_model_of_keras_2(tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as h5:
        h5["dense/dense/kernel:0"] = np.zeros((2, 3), "float32")
        h5["dense"].attrs["weight_names"] = ["dense/kernel:0"]
        h5.attrs["layer_names"] = ["dense"]
    message = (
        r"Keras 2.*layer `dense` has the weights kernel, where "
        r"`patch_embed/conv` has kernel, bias\. Convert .* timm's names"
    )
    with pytest.raises(ValueError, match=message):
        read_weights(path)


def test_one_convmixer_has_no_key(path):
    with pytest.raises(ValueError, match="argument `key`"):
        read_weights(path, key="encoder")


def test_truncated_anywhere(path):
    content = path.read_bytes()
    for size in [8, 100, 1000, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"it is .* truncated"):
            read_weights(path)


def test_any_flipped_byte_is_found_or_reads_as_weights(path):
    check_flipped_bytes(path, 997, set(read_weights(path)))


@pytest.mark.parametrize("change", [{"kernel_size": 9}, {"depth": 3}])
def test_all_or_nothing(path, change):
    model = build(**change)
    before = model_weights(model)
    with pytest.raises(ValueError, match="do not fit the model"):
        load_weights(model, path)
    assert_same(model_weights(model), before)
