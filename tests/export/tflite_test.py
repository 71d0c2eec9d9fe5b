"""Tests TFLite files in a runtime other than the one that wrote them."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from sklearn.datasets import load_digits

from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import deploy
from convmixer_tf.export import export_tflite
from convmixer_tf.export import read_metadata
from convmixer_tf.export.metadata import TFLiteMetadata
from convmixer_tf.export.tflite_model import describe_tflite
from convmixer_tf.export.tflite_model import ends_in_probabilities
from convmixer_tf.export.tflite_model import unpack
from convmixer_tf.models import ConvMixer
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import relative_difference

# Images that differ by more than noise: each has a different brightness.
IMAGES = asymmetric_image(36, 28, batch=40)
IMAGES = np.uint8(IMAGES * np.linspace(0.1, 1, 40)[:, None, None, None])
NAMES = ("ant", "bee", "cat", "dog", "elk")
BOUNDS = {
    "float32": 1e-5,
    "float16": 2e-3,
    "dynamic": 0.02,
    "int4": 0.4,
    "int8": 0.1,
}
FAST = ("float32", "int8")  # The others are tested in the slow tier.
SLOW = pytest.mark.slow
KINDS = [
    pytest.param(kind, marks=[] if kind in FAST else [SLOW]) for kind in BOUNDS
]


def convmixer(dim=16, kernel_size=7, **arguments):
    arguments = {"classifier_activation": None, "classes": 5, **arguments}
    shape = arguments.pop("input_shape", (36, 28, 3))
    model = ConvMixer(dim, 2, kernel_size, 4, input_shape=shape, **arguments)
    return randomize(model)


@pytest.fixture(scope="module")
def model():
    return convmixer()


class Exported(dict):
    """Returns the path of a file, which is written on first use."""

    def __init__(self, model, folder):
        self.model, self.folder = model, folder

    def __missing__(self, key):
        quantization, plain = key
        self[key] = path = self.folder / f"{quantization}_{plain}.tflite"
        export_tflite(
            self.model,
            path,
            quantization=quantization,
            calibration_images=IMAGES if quantization == "int8" else None,
            plain=plain,
        )
        return path


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return Exported(model, tmp_path_factory.mktemp("tflite"))


@pytest.mark.parametrize(
    "kind", [*KINDS, "float32 plain", pytest.param("int8 plain", marks=SLOW)]
)
def test_it_computes_what_the_model_does(exported, model, kind):
    quantization, _, plain = kind.partition(" ")
    path = exported[quantization, bool(plain)]
    outputs = LiteRTModel(path).predict(IMAGES)
    assert outputs.dtype == np.float32
    difference = relative_difference(outputs, model(IMAGES))
    assert difference < BOUNDS[quantization]
    if quantization != "float32":
        assert difference > 0


@pytest.mark.parametrize("quantization", KINDS)
def test_what_is_in_the_file(exported, quantization):
    path = exported[quantization, False]
    found = describe_tflite(path)
    assert found["custom_operators"] == []
    assert not {"VAR_HANDLE", "READ_VARIABLE"} & set(found["operators"])
    assert found["quantization"] == quantization
    (image,), (predictions,) = found["inputs"], found["outputs"]
    assert (image["name"], image["shape"]) == ("image", [1, 36, 28, 3])
    assert (predictions["name"], predictions["shape"]) == (
        "predictions",
        [1, 5],
    )
    assert predictions["dtype"] == "float32"
    if quantization == "int8":
        assert image["dtype"] == "uint8"
        assert (image["scale"], image["zero_point"]) == (1, 0)
    else:
        assert image["dtype"] == "float32"
    signatures = Interpreter(str(path)).get_signature_list()
    assert list(signatures) == ["serving_default"]


def test_deployment_is_in_the_file(exported):
    for quantization in FAST:
        ours = describe_tflite(exported[quantization, False])["operators"]
        assert ours["DEPTHWISE_CONV_2D"] > 2
        assert "MUL" not in ours
    plain = describe_tflite(exported["float32", True])["operators"]
    assert plain["DEPTHWISE_CONV_2D"] == 2
    assert plain["MUL"] >= 5


@pytest.mark.slow
def test_weights_are_in_the_file(exported):
    """Tests the number of bits."""
    kinds = {
        quantization: weight_types(exported[quantization, False])
        for quantization in BOUNDS
    }
    types = schema.TensorType
    assert kinds == {
        "float32": {types.FLOAT32},
        "float16": {types.FLOAT16},
        "dynamic": {types.INT8},
        "int4": {types.INT4},
        "int8": {types.INT8},
    }


def weight_types(path):
    """Lists the types of the constant kernels of 1 x 1 convolutions."""
    return {tensor.type for tensor in pointwise_kernels(path)}


def pointwise_kernels(path):
    """Lists the constant kernels of 1 x 1 convolutions, in order."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    graph = model.subgraphs[0]
    codes = [code.builtinCode for code in model.operatorCodes]
    kernels = []
    for operator in graph.operators:
        code = codes[operator.opcodeIndex]
        if code == schema.BuiltinOperator.CONV_2D:
            kernels.append(int(operator.inputs[1]))
    dequantized = {
        int(operator.outputs[0]): int(operator.inputs[0])
        for operator in graph.operators
        if codes[operator.opcodeIndex] == schema.BuiltinOperator.DEQUANTIZE
    }
    tensors = [graph.tensors[dequantized.get(k, k)] for k in kernels]
    tensors = [t for t in tensors if tuple(t.shape[1:3]) == (1, 1)]
    assert tensors
    for tensor in tensors:
        assert len(model.buffers[tensor.buffer].data)
    return tensors


@pytest.mark.slow
def test_steps_of_four_bits(tmp_path):
    """Scales suit most weights instead of the largest, and are never 0."""
    model, path = convmixer(dim=256), tmp_path / "model.tflite"
    layer = model.get_layer("block_0").pointwise
    kernel = 0.1 * np.random.default_rng(0).normal(size=(1, 1, 256, 256))
    kernel[..., 3] = 0
    layer.kernel.assign(kernel)
    export_tflite(model, path, quantization="int4")
    deployed = deploy(model, "litert_dynamic").get_layer("block_0_pointwise")
    kernel = deployed.get_weights()[0]
    steps = pointwise_kernels(path)[0].quantization.scale
    assert steps.shape == (256,)
    assert steps.min() > 0
    assert not kernel[..., 3].any()

    def error(steps):
        rounded = steps * np.clip(np.rint(kernel / steps), -7, 7)
        return np.square(rounded - kernel).sum()

    for_the_largest = np.maximum(np.abs(kernel).max((0, 1, 2)) / 7, 1e-9)
    assert error(steps) < 0.85 * error(for_the_largest)
    assert error(steps) < min(error(0.8 * steps), error(1.25 * steps))
    difference = relative_difference(
        LiteRTModel(path).predict(IMAGES), model(IMAGES)
    )
    assert difference < BOUNDS["int4"]


@pytest.mark.slow
def test_a_large_file(tmp_path):
    """litert-quantizer stores the weights of large files after the model."""
    model, path = convmixer(dim=384, kernel_size=3), tmp_path / "model.tflite"
    export_tflite(model, path, quantization="dynamic")
    assert path.stat().st_size > 2**18
    outputs = LiteRTModel(path).predict(IMAGES)
    assert relative_difference(outputs, model(IMAGES)) < 0.1


@pytest.mark.large
def test_uint8_out(model, tmp_path):
    path, softmax = (
        tmp_path / "model.tflite",
        convmixer(classifier_activation="softmax"),
    )
    for network, bound in ((model, 0.1), (softmax, 0.03)):
        export_tflite(
            network,
            path,
            quantization="int8",
            calibration_images=IMAGES,
            output_dtype="uint8",
            overwrite=True,
        )
        (output,) = describe_tflite(path)["outputs"]
        assert output["dtype"] == "uint8"
        file = unpack(path.read_bytes())
        assert ends_in_probabilities(file) == (network is softmax)
        outputs = LiteRTModel(path).predict(IMAGES)
        expected = network.predict(IMAGES, verbose=0)
        assert np.abs(outputs - expected).max() < bound * np.ptp(expected)
    assert (output["scale"], output["zero_point"]) == (1 / 256, 0)


@pytest.mark.slow
@pytest.mark.parametrize("low", [-9, 0])
def test_uint8_out_of_logits_without_a_positive_one(tmp_path, low):
    model, path = convmixer(), tmp_path / "model.tflite"
    dense = model.get_layer("predictions")
    dense.kernel.assign(0 * dense.kernel)
    dense.bias.assign(np.linspace(low, low / 9, 5))
    uint8_file(model, path)
    (output,) = describe_tflite(path)["outputs"]
    assert output["scale"] > 0
    assert output["zero_point"] == (255 if low else 0)
    (outputs,) = LiteRTModel(path).predict(IMAGES[:1])
    np.testing.assert_allclose(outputs, dense.bias, atol=0.02)


@pytest.mark.slow
def test_uint8_out_of_a_feature_map(tmp_path):
    model, path = convmixer(include_top=False), tmp_path / "model.tflite"
    uint8_file(model, path)
    outputs = LiteRTModel(path).predict(IMAGES)
    expected = model.predict(IMAGES, verbose=0)
    assert np.abs(outputs - expected).max() < 0.1 * np.ptp(expected)


def uint8_file(model, path):
    export_tflite(
        model,
        path,
        quantization="int8",
        calibration_images=IMAGES,
        output_dtype="uint8",
    )


@pytest.mark.large
def test_metadata_are_in_the_file(model, tmp_path):
    path = tmp_path / "model.tflite"
    export_tflite(model, path, class_names=list(NAMES), description="Animals.")
    assert read_metadata(path) == TFLiteMetadata(
        "convmixer", description="Animals.", class_names=NAMES
    )
    with pytest.raises(ValueError, match="must be 5 class names"):
        export_tflite(model, path, class_names=NAMES[:3], overwrite=True)
    assert read_metadata(path).class_names == NAMES


@pytest.mark.large
def test_calibration_keeps_rare_values(tmp_path):
    """One image of fifty has a larger range. It must not be clipped."""
    images = IMAGES.copy() // 6
    images[7] = IMAGES[-1]
    model, path = convmixer(), tmp_path / "model.tflite"
    export_tflite(model, path, quantization="int8", calibration_images=images)
    outputs = LiteRTModel(path).predict(images[7:8])
    assert relative_difference(outputs, model(images[7:8])) < 0.05


@pytest.mark.large
def test_a_stem_of_extreme_scales(tmp_path):
    """Almost constant channels are multiplied by up to 1 / sqrt(1e-5).

    Patches of one gray pixel have such channels. In 8 bits, they once reduced
    the accuracy of a network from 99.4 % to 34 %.
    """
    model = convmixer(dim=32)
    embed = model.get_layer("patch_embed")
    faint = np.where(np.arange(32) % 4, 1, 1 / 280)
    embed.conv.kernel.assign(embed.conv.kernel * faint)
    embed.conv.bias.assign(embed.conv.bias * faint)
    embed.norm.gamma.assign(embed.norm.gamma / faint)
    differences = {}
    for plain in (False, True):
        path = tmp_path / f"{plain}.tflite"
        export_tflite(
            model,
            path,
            quantization="int8",
            calibration_images=IMAGES,
            plain=plain,
        )
        outputs = LiteRTModel(path).predict(IMAGES)
        differences[plain] = relative_difference(outputs, model(IMAGES))
    assert differences[False] < 0.04
    assert differences[True] > 1.5 * differences[False]


@pytest.mark.large
def test_patches_of_one_gray_pixel(tmp_path):
    """The hardest case for 8 bits, on real digits.

    The stem's channels are multiples of one number. They differ only in the
    bend of their activation. Some are almost constant, and their batch norms
    multiply by up to fifty times the others' factors.
    """
    digits = load_digits()
    images = np.uint8(np.rint(digits.images * (255 / 16)))[..., None]
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], digits.target[order]
    test, train = slice(0, 360), slice(360, None)
    model = ConvMixer(
        *(48, 3, 5, 1),
        input_shape=(8, 8, 1),
        classes=10,
        mean=0.3054,
        std=0.3760,
    )
    epochs = 12
    rate = keras.optimizers.schedules.CosineDecay(4e-3, epochs * 1437 // 64)
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.02),
        "sparse_categorical_crossentropy",
    )
    pixels = np.float32(images[train])
    model.fit(pixels, labels[train], 64, epochs, verbose=0)
    outputs = model.predict(images[test], verbose=0)
    deployed = deploy(model, "litert_int8").predict(images[test], verbose=0)
    # Rounding errors are also multiplied by fifty.
    assert relative_difference(deployed, outputs) < 1e-4
    best = {None: outputs.argmax(-1)}
    for plain in (False, True):
        path = tmp_path / f"{plain}.tflite"
        export_tflite(
            model,
            path,
            quantization="int8",
            calibration_images=images[train][:200],
            plain=plain,
        )
        best[plain] = LiteRTModel(path).predict(images[test]).argmax(-1)
    accuracy = {k: np.mean(x == labels[test]) for k, x in best.items()}
    assert accuracy[None] > 0.97
    assert accuracy[False] > accuracy[None] - 0.01
    assert np.mean(best[False] == best[None]) > 0.985
    # It is the hardest case: TensorFlow's own conversion fails.
    assert accuracy[True] < accuracy[None] - 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy",
    ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.large)],
)
def test_models_trained_in_half_precision(model, tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    half = keras.models.clone_model(model, clone_function=_half)
    half.set_weights(model.get_weights())
    assert half.get_layer("block_1").depthwise.compute_dtype in policy
    plain = policy == "mixed_float16"
    export_tflite(half, tmp_path / "model.tflite", plain=plain)
    outputs = LiteRTModel(tmp_path / "model.tflite").predict(IMAGES)
    assert relative_difference(outputs, model(IMAGES)) < 1e-5


def _half(layer):
    config = layer.get_config()
    if layer.name.startswith(("block", "patch")):
        config["dtype"] = keras.config.dtype_policy().name
    return type(layer).from_config(config)


def test_other_backends_are_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow"):
        export_tflite(model, tmp_path / "model.tflite")


@pytest.mark.slow
def test_operators_that_are_not_built_in(tmp_path):
    model = convmixer(activation=keras.ops.erfinv)
    with pytest.raises(ValueError, match=r"cannot convert the model.*Erfinv"):
        export_tflite(model, tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []


def test_errors_leave_no_file(model, tmp_path):
    path = tmp_path / "model.tflite"
    free = ConvMixer(4, 1, 3, 4, input_shape=(None, None, 3))
    dense = keras.Sequential([keras.Input((36, 28, 3)), keras.layers.Flatten()])
    raw = convmixer(include_preprocessing=False)
    int8 = {"quantization": "int8"}
    few = "at least 10 different images. Received: "
    for bad, arguments, message in (
        (model, {"quantization": "int2"}, "`quantization` must be one of"),
        (
            model,
            {"quantization": "int4", "plain": True},
            "`quantization` must be one of",
        ),
        (model, {"output_dtype": "uint8"}, "`output_dtype` must be"),
        (model, {**int8, "output_dtype": "int8"}, "`output_dtype` must be"),
        (model, int8, "needs `calibration_images`, an array"),
        (
            model,
            {**int8, "calibration_images": IMAGES[:, :9]},
            r"Received: shape \(40, 9, 28, 3\)",
        ),
        (
            model,
            {**int8, "calibration_images": IMAGES[:0]},
            "needs `calibration_images`",
        ),
        (
            model,
            {**int8, "calibration_images": IMAGES[:9]},
            f"{few}9, of which 9",
        ),
        (
            model,
            {**int8, "calibration_images": IMAGES[[1] * 40]},
            f"{few}40, of which 1",
        ),
        (
            model,
            {**int8, "calibration_images": IMAGES / 255},
            r"must be pixels in \[0, 255\]. Received: values from",
        ),
        (model, {"calibration_images": IMAGES}, 'needs `quantization="int8"`'),
        (model, {"class_names": "abcde"}, "must be 5 class names"),
        (model, {"class_names": range(5)}, "must be 5 class names"),
        (raw, {}, r"must take pixels in \[0, 255\]"),
        (raw, {"plain": True}, r"must take pixels in \[0, 255\]"),
        (deploy(raw, "litert"), {}, r"must take pixels in \[0, 255\]"),
        (free, {}, "one input of static height and width"),
        (dense, {}, "must be or contain a ConvMixer"),
    ):
        with pytest.raises(ValueError, match=message):
            export_tflite(bad, path, **arguments)
    with pytest.raises(ValueError, match=r"must end in \.tflite"):
        export_tflite(model, tmp_path / "model.h5")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        export_tflite(model, tmp_path / "missing" / "model.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_file_is_replaced_on_request_only(model, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="pass `--overwrite`"):
        export_tflite(model, path)
    assert path.read_bytes() == b"precious"
    export_tflite(model, path, overwrite=True)
    assert LiteRTModel(path).predict(IMAGES[:1]).shape == (1, 5)


def test_running_what_is_no_file_or_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        LiteRTModel(tmp_path / "missing.tflite")
    (tmp_path / "text.tflite").write_text("not a model")
    with pytest.raises(ValueError, match=r"text.tflite` is not a complete TFL"):
        LiteRTModel(tmp_path / "text.tflite")


@pytest.mark.parametrize("shape", [(36, 28, 3), (1, 28, 36, 3), (0, 36, 28, 3)])
def test_running_other_shapes(exported, shape):
    runner = LiteRTModel(exported["float32", False])
    with pytest.raises(ValueError, match=r"of shape \(batch, 36, 28, 3\)"):
        runner.predict(np.zeros(shape))
