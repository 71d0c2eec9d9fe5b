"""Tests that the deployed model has the same outputs, and its maps."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import deploy
from convmixer_tf.export import export_tflite
from convmixer_tf.export import read_metadata
from convmixer_tf.export.deploy import MAPS
from convmixer_tf.export.deploy import _depthwise
from convmixer_tf.export.deploy import add_activation_maps
from convmixer_tf.export.split import TARGETS
from convmixer_tf.export.split import choose_parts
from convmixer_tf.export.split import split_taps
from convmixer_tf.export.tflite_model import describe_tflite
from convmixer_tf.models import ConvMixer
from convmixer_tf.models import ConvMixer512_16
from convmixer_tf.models import ConvMixer768_32
from convmixer_tf.models import ConvMixer1024_20
from convmixer_tf.models import ConvMixer1536_20
from tests.export.fold_test import depthwise
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import relative_difference
from tests.helpers import run_python

IMAGES = asymmetric_image(23, 31)
FEATURES = {"include_top": False}


def build(kernel_size=7, dim=16, depth=1, patch_size=3, **arguments):
    if arguments.get("include_top", True):
        head = {"classes": 5, "classifier_activation": None}
        arguments = {**head, **arguments}
    arguments.setdefault("input_shape", (23, 31, 3))
    return randomize(
        ConvMixer(dim, depth, kernel_size, patch_size, **arguments)
    )


def difference(model, deployed, images=IMAGES):
    return relative_difference(deployed(images), model(images))


def kernels(deployed):
    return {
        layer.kernel_size
        for layer in deployed.layers
        if isinstance(layer, keras.layers.DepthwiseConv2D)
    }


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kernel_size", [1, 4, 7, 8, 9])
def test_feature_maps_are_the_models(kernel_size, target):
    model = build(kernel_size, depth=2, **FEATURES)
    deployed = deploy(model, target)
    assert difference(model, deployed) < 1e-5
    if target != "float":
        assert max(rows * columns for rows, columns in kernels(deployed)) <= 25
    else:
        assert kernels(deployed) == {(1, 1), (kernel_size, kernel_size)}


@pytest.mark.parametrize("target", TARGETS)
def test_logits_are_the_models(target):
    model = build(9, depth=2)
    assert difference(model, deploy(model, target)) < 1e-5


@pytest.mark.large
@pytest.mark.parametrize(
    "variant",
    [ConvMixer1536_20, ConvMixer768_32, ConvMixer1024_20, ConvMixer512_16],
)
@pytest.mark.parametrize("target", ["litert", "litert_int8"])
def test_the_published_variants(variant, target):
    """Uses maps larger than the kernels, to test borders and centers."""
    images = asymmetric_image(11 * 14, 12 * 14, batch=1)
    model = variant(
        weights=None,
        input_shape=images.shape[1:],
        classifier_activation=None,
    )
    randomize(model)
    assert difference(model, deploy(model, target), images) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {"activation": "relu"},
        {"activation": "silu", "classifier_activation": "softmax"},
        {"activation": "sigmoid", "classifier_activation": "sigmoid"},
        {"activation": None, "classes": 2},
        {"include_preprocessing": False},
        {"mean": 0.1, "std": (0.3, 0.2, 0.1)},
        {"include_top": False, "pooling": "avg"},
        {"include_top": False, "pooling": "max"},
        {"input_shape": (None, None, 3)},
        {"input_shape": (23, None, 3)},
        {"patch_size": 1},
        {"patch_size": 23},
        {"dropout": 0.5, "drop_path": 0.5, "remat": True, "depth": 2},
        {"dim": 3, "depth": 3},
    ],
    ids=str,
)
def test_all_that_a_convmixer_can_be(arguments):
    model = build(**arguments)
    for target in ("litert", "litert_int8"):
        assert difference(model, deploy(model, target)) < 1e-5


@pytest.mark.parametrize("channels", [1, 5])
def test_other_images(channels):
    model = build(input_shape=(23, 31, channels))
    images = asymmetric_image(23, 31, channels)
    assert difference(model, deploy(model), images) < 1e-5


@pytest.mark.parametrize("include_top", [False, True])
def test_a_patch_embedding_alone(include_top):
    model = build(dim=16)
    x = model.get_layer("patch_embed").output
    if include_top:
        x = keras.layers.GlobalMaxPooling2D()(x)
        x = keras.layers.Dense(3)(x)
    stem = keras.Model(model.input, x)
    for target in TARGETS:
        assert difference(stem, deploy(stem, target)) < 1e-5


def test_groups_of_a_wide_model():
    model = build(7, dim=300)
    deployed = deploy(model, "litert")
    assert deployed.deployment.blocks[0].groups == (150, 150)
    assert difference(model, deployed) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "pooling"),
    [(0, None), (0, "avg"), (-1e-12, None), (1e6, "avg"), ([0, 1e6], None)],
    ids=str,
)
def test_scales_out_of_range(values, pooling):
    model = build(depth=2, include_top=False, pooling=pooling)
    block = model.get_layer("block_1")
    gamma = np.array(block.depthwise_norm.gamma.numpy())
    gamma[3:5] = values
    block.depthwise_norm.gamma.assign(gamma)
    block.pointwise_norm.gamma.assign(gamma[::-1])
    for target in TARGETS:
        deployed = deploy(model, target)
        assert difference(model, deployed) < 1e-5
        blocks = deployed.deployment.blocks
        divides = target in ("float", "litert")
        assert [b.divided for b in blocks] == [divides, False]
        assert blocks[1].smallest_scale == pytest.approx(
            min(np.abs(values).min(), blocks[1].smallest_scale), rel=1e-3
        )


@pytest.mark.parametrize("gamma", [1e-3, 1e6])
def test_an_extreme_last_norm_is_kept_for_8_bits(gamma):
    model = build()
    norm = model.get_layer("block_0").pointwise_norm
    norm.gamma.assign(np.where(np.arange(16) < 3, gamma, 1.0))
    for target in TARGETS:
        deployed = deploy(model, target)
        assert difference(model, deployed) < 1e-5
        extreme = gamma > 1
        kept = extreme and target == "litert_int8"
        report = deployed.deployment
        assert report.last_norm == ("kept" if kept else "folded")
        names = ("block_0/pointwise_norm",) if extreme else ()
        assert report.extreme_norms == names


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_models_trained_in_half_precision(policy):
    model = build()
    keras.config.set_dtype_policy(policy)
    half = build()
    half.set_weights(model.get_weights())
    deployed = deploy(half)
    assert {layer.compute_dtype for layer in deployed.layers[1:]} == {"float32"}
    assert difference(model, deployed) < 1e-5


def test_channels_first_models_become_channels_last():
    model = build()
    keras.config.set_image_data_format("channels_first")
    first = build(input_shape=(3, 23, 31))
    first.set_weights(model.get_weights())
    deployed = deploy(first, "litert")
    assert deployed.input_shape == (None, 23, 31, 3)
    assert difference(model, deployed) < 1e-5


def test_the_description():
    model = build(9, depth=2)
    report = deploy(model, "litert_int8").deployment
    assert json.loads(json.dumps(dataclasses.asdict(report)))
    assert (report.target, report.source) == ("litert_int8", "convmixer")
    assert report.preprocessing_folded
    assert report.last_norm == "folded"
    assert [block.name for block in report.blocks] == ["block_0", "block_1"]
    shapes = [(len(p.rows), len(p.columns)) for p in report.blocks[0].parts]
    assert shapes == [(5, 5), (5, 4), (4, 5), (4, 4)]
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.target = "float"
    plain = build(include_preprocessing=False, **FEATURES)
    report = deploy(plain).deployment
    assert not report.preprocessing_folded
    assert report.last_norm == "kept"


@pytest.mark.large
def test_it_loads_without_this_package(tmp_path):
    model = build(9)
    deploy(model, "litert_int8").save(tmp_path / "deployed.keras")
    np.save(tmp_path / "images.npy", IMAGES)
    run_python(
        "import os, sys, keras, numpy as np\n"
        "sys.modules['convmixer_tf'] = None\n"
        "os.chdir(sys.argv[1])\n"
        "model = keras.models.load_model('deployed.keras')\n"
        "np.save('outputs.npy', model.predict(np.load('images.npy')))",
        tmp_path,
    )
    outputs = np.load(tmp_path / "outputs.npy")
    assert relative_difference(outputs, model(IMAGES)) < 1e-5


@pytest.mark.slow
def test_8_bits_bear_channels_that_hardly_change(tmp_path):
    # In a ReLU network, this gives the same function: some activations are
    # scaled down, and their normalizations up.
    model = build(5, dim=32, activation="relu")
    stem, block = model.get_layer("patch_embed"), model.get_layer("block_0")
    shrink = np.where(np.arange(32) % 4 == 0, 2.0**-9, 1.0)
    for conv, norm, factor in (
        (stem.conv, stem.norm, shrink),
        (block.depthwise, block.depthwise_norm, shrink[:, None]),
    ):
        conv.kernel.assign(conv.kernel.numpy() * factor)
        conv.bias.assign(conv.bias.numpy() * shrink)
        norm.moving_mean.assign(norm.moving_mean.numpy() * shrink)
        norm.gamma.assign(norm.gamma.numpy() / shrink)
    images = asymmetric_image(23, 31, batch=10)
    errors = []
    for network in (model, deploy(model, "litert_int8")):
        path = tmp_path / "model.tflite"
        export_tflite(
            network,
            path,
            quantization="int8",
            calibration_images=images,
            plain=True,
            overwrite=True,
        )
        outputs = LiteRTModel(path).predict(images)
        errors.append(relative_difference(outputs, model(images)))
    plain, deployed = errors
    assert deployed < 0.05 < 5 * deployed < plain


def test_unknown_targets():
    with pytest.raises(ValueError, match="`target` must be one of"):
        deploy(build(), "phone")


@pytest.mark.parametrize("shape", [(11, 7), (2, 3), (1, 1)])
@pytest.mark.parametrize("size", [6, 7, 8, 9])
def test_parts_add_up_to_the_whole(size, shape):
    rng = np.random.default_rng(size)
    kernel, bias = rng.normal(size=(size, size, 3)), rng.normal(size=3)
    images = rng.normal(size=(2, *shape, 3)).astype("float32")
    splits = (
        choose_parts("litert", size),
        choose_parts("litert_int8", size),
        split_taps(size, 2, 3),
    )
    x = keras.Input((None, None, 3))
    outputs = [
        _depthwise(x, kernel, bias, parts, f"split_{i}")
        for i, parts in enumerate(splits)
    ]
    expected = depthwise(images, kernel, bias)
    for output in keras.Model(x, outputs)(images):
        assert relative_difference(output, expected) < 1e-6


MAP_IMAGES = asymmetric_image(36, 28, batch=20)
NAMES = ("ant", "bee", "cat", "dog", "elk")


@pytest.fixture(scope="module")
def model():
    return build(
        3,
        depth=2,
        patch_size=4,
        input_shape=(36, 28, 3),
        classifier_activation="softmax",
    )


@pytest.fixture(scope="module")
def expected(model):
    """Computes the features times the classifier's kernel plus its bias."""
    pool = model.get_layer("avg_pool")
    features = keras.Model(model.input, pool.input)(MAP_IMAGES)
    kernel, bias = model.get_layer("predictions").get_weights()
    return np.asarray(features) @ kernel + bias


@pytest.mark.parametrize("target", ["float", "litert", "litert_int8"])
def test_maps_of_the_deployed_model(model, expected, target):
    outputs = add_activation_maps(deploy(model, target))(MAP_IMAGES)
    assert outputs[MAPS].shape == (20, 9, 7, 5)
    assert relative_difference(outputs[MAPS], expected) < 1e-5
    predictions = model(MAP_IMAGES)
    assert relative_difference(outputs["predictions"], predictions) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantization", "bound"),
    [
        ("float32", 1e-5),
        ("int8", 0.1),
        pytest.param("dynamic", 0.03, marks=pytest.mark.large),
        pytest.param("int4", 0.5, marks=pytest.mark.large),
        pytest.param("float16", 3e-3, marks=pytest.mark.large),
    ],
)
def test_maps_in_a_file(model, expected, tmp_path, quantization, bound):
    path = tmp_path / "model.tflite"
    export_tflite(
        model,
        path,
        quantization=quantization,
        calibration_images=MAP_IMAGES if quantization == "int8" else None,
        class_names=NAMES,
        class_activation_maps=True,
    )
    maps = LiteRTModel(path, output=MAPS).predict(MAP_IMAGES)
    predictions = LiteRTModel(path).predict(MAP_IMAGES)
    assert relative_difference(maps, expected) < bound
    # The predictions are computed from the rounded maps.
    logits = maps.mean(axis=(1, 2), dtype="float64")
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(predictions, softmax, atol=1e-5)
    outputs = describe_tflite(path)["outputs"]
    shapes = {output["name"]: output["shape"] for output in outputs}
    assert shapes == {"predictions": [1, 5], MAPS: [1, 9, 7, 5]}
    assert read_metadata(path).class_names == NAMES
    with pytest.raises(ValueError, match="an output named `logits`"):
        LiteRTModel(path, output="logits")


def test_maps_are_of_classifiers(model, tmp_path):
    body = build(include_top=False, pooling="avg")
    with pytest.raises(ValueError, match="need a classifier after average"):
        add_activation_maps(deploy(body))
    path = tmp_path / "model.tflite"
    for arguments in (
        {"plain": True},
        {"quantization": "int8", "output_dtype": "uint8"},
    ):
        with pytest.raises(ValueError, match="maps` needs plain=False"):
            export_tflite(model, path, class_activation_maps=True, **arguments)
