"""The rewritten model computes what the model computes."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import deploy
from convmixer_tf.export import export_tflite
from convmixer_tf.export.split_rule import TARGETS
from convmixer_tf.models import ConvMixer
from convmixer_tf.models import ConvMixer512_16
from convmixer_tf.models import ConvMixer768_32
from convmixer_tf.models import ConvMixer1024_20
from convmixer_tf.models import ConvMixer1536_20
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
@pytest.mark.parametrize("kernel_size", [4, 9])
def test_logits_are_the_models(kernel_size, target):
    model = build(kernel_size, depth=2)
    assert difference(model, deploy(model, target)) < 1e-5


@pytest.mark.large
@pytest.mark.parametrize(
    "variant",
    [ConvMixer1536_20, ConvMixer768_32, ConvMixer1024_20, ConvMixer512_16],
)
@pytest.mark.parametrize("target", ["litert", "litert_int8"])
def test_the_published_variants(variant, target):
    """On maps larger than the kernels, so that borders and middles count."""
    images = asymmetric_image(11 * 14, 12 * 14, batch=1)
    model = variant(
        weights=None,
        input_shape=images.shape[1:],
        classifier_activation=None,
    )
    randomize(model)
    assert difference(model, deploy(model, target), images) < 1e-5


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
@pytest.mark.parametrize("target", ["litert", "litert_int8"])
def test_all_that_a_convmixer_can_be(arguments, target):
    model = build(**arguments)
    assert difference(model, deploy(model, target)) < 1e-5


@pytest.mark.parametrize("channels", [1, 5])
def test_other_images(channels):
    model = build(input_shape=(23, 31, channels))
    images = asymmetric_image(23, 31, channels)
    assert difference(model, deploy(model), images) < 1e-5


def test_groups_of_a_wide_model():
    model = build(7, dim=300)
    deployed = deploy(model, "litert")
    assert deployed.deployment.blocks[0].groups == (150, 150)
    assert difference(model, deployed) < 1e-5


@pytest.mark.parametrize("values", [0, 1e-12, -1e-12, 1e6, [0, 1e6]], ids=str)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("pooling", [None, "avg"])
def test_scales_of_no_sane_size(values, target, pooling):
    model = build(depth=2, include_top=False, pooling=pooling)
    block = model.get_layer("block_1")
    gamma = np.array(block.depthwise_norm.gamma.numpy())
    gamma[3:5] = values
    block.depthwise_norm.gamma.assign(gamma)
    block.pointwise_norm.gamma.assign(gamma[::-1])
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


def test_the_model_stays_as_it_was():
    model = build()
    weights, config = model.get_weights(), model.get_config()
    deployed = deploy(model, "litert_int8")
    for layer in deployed.layers:
        layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    assert model.get_config() == config
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


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


def test_a_float32_file(tmp_path):
    model = build(9)
    export_tflite(
        deploy(model, "litert"), tmp_path / "model.tflite", plain=True
    )
    outputs = LiteRTModel(tmp_path / "model.tflite").predict(IMAGES)
    assert relative_difference(outputs, model(IMAGES)) < 1e-5


def test_8_bits_bear_channels_that_hardly_change(tmp_path):
    # Of a ReLU network the same function: some channels' activations are
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
    images = asymmetric_image(23, 31, batch=20)
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


def _after_other_layers():
    image = keras.Input((23, 31, 3))
    return build(input_tensor=keras.layers.Rescaling(2.0)(image))


def _flattened():
    model = build(**FEATURES)
    return keras.Model(model.input, keras.layers.Flatten()(model.output))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda: keras.Sequential([keras.layers.Dense(3)]), "not a functional"),
        (_after_other_layers, "no PatchEmbed at its start"),
        (_flattened, "Flatten 'flatten.*' is not part of one"),
        (lambda: deploy(build()), "'block_0_residual' takes 2 tensors"),
    ],
)
def test_other_models_are_refused(wrong, reason):
    message = rf"must be what `ConvMixer\(...\)` returns.*{reason}"
    with pytest.raises(ValueError, match=message):
        deploy(wrong())


def test_weights_that_are_not_finite():
    model = build()
    model.get_layer("block_0").depthwise.bias.assign(np.full(16, np.nan))
    with pytest.raises(ValueError, match=r"infinity in .*depthwise/bias"):
        deploy(model)
