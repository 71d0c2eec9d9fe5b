"""Tests ONNX files in onnxruntime."""

import builtins
import collections
import json

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import version_converter
from onnxruntime import quantization
from sklearn.datasets import load_sample_images

from convmixer_tf.export import deploy
from convmixer_tf.export import export_onnx
from convmixer_tf.export import onnx_export
from convmixer_tf.export import onnx_plain
from convmixer_tf.export.onnx_activations import write_activation
from convmixer_tf.export.onnx_graph import Graph
from convmixer_tf.export.verification import open_runtime
from convmixer_tf.models import ConvMixer
from convmixer_tf.models import ConvMixer256_8
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import relative_difference

IMAGES = asymmetric_image(24, 20, batch=5)


def convmixer(kernel_size=3, input_shape=(24, 20, 3), **arguments):
    arguments = {"classes": 5, "classifier_activation": None, **arguments}
    return randomize(
        ConvMixer(16, 2, kernel_size, 4, input_shape=input_shape, **arguments)
    )


def session(path, optimized=None):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(str(path), options)


def run(path, images):
    (outputs,) = session(path).run(None, {"image": images})
    return outputs


def doubled(x):
    """An activation that Keras does not know."""
    return 2 * keras.ops.tanh(x)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model and the path of its file."""
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    model = convmixer(kernel_size=4)
    export_onnx(model, path)
    return model, path


@pytest.mark.parametrize(
    ("kernel_size", "activation"), [(9, "gelu"), (4, "relu"), (3, doubled)]
)
def test_the_file_is_the_keras_model(tmp_path, kernel_size, activation):
    model = convmixer(kernel_size, activation=activation)
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    outputs = run(path, np.float32(IMAGES))
    assert relative_difference(outputs, model(IMAGES)) < 1e-5


def test_what_is_in_the_file(exported):
    content = onnx.load(exported[1])
    assert {item.domain: item.version for item in content.opset_import}[
        ""
    ] == onnx_export.OPSET
    counts = collections.Counter(node.op_type for node in content.graph.node)
    assert counts["Erf"] == 5
    assert not {node.domain for node in content.graph.node} - {""}
    kernels = [
        onnx.numpy_helper.to_array(tensor).shape
        for tensor in content.graph.initializer
        if len(tensor.dims) == 4
    ]
    # The normalizations are not convolutions: one stem, two blocks.
    assert collections.Counter(kernels) == {
        (16, 3, 4, 4): 1,
        (16, 1, 4, 4): 2,
        (16, 16, 1, 1): 2,
    }
    (image,), (output,) = content.graph.input, content.graph.output
    assert (image.name, output.name) == ("image", "predictions")
    sides = [
        side.dim_param or side.dim_value
        for side in image.type.tensor_type.shape.dim
    ]
    assert sides == ["batch", 24, 20, 3]


def test_onnxruntime_knows_the_gelu(exported, tmp_path):
    session(exported[1], tmp_path / "optimized.onnx")
    optimized = onnx.load(tmp_path / "optimized.onnx").graph
    counts = collections.Counter(node.op_type for node in optimized.node)
    assert counts["Gelu"] == 5
    assert counts["Erf"] == 0


def test_one_image_of_8_bits_at_a_time(tmp_path):
    model, path = (
        convmixer(classifier_activation="softmax"),
        tmp_path / "m.onnx",
    )
    export_onnx(model, path, dynamic_batch=False, pixels="uint8")
    outputs = [run(path, image[None]) for image in IMAGES]
    difference = relative_difference(np.concatenate(outputs), model(IMAGES))
    assert difference < 1e-5
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        run(path, IMAGES)


def test_any_size_and_features(tmp_path):
    model = convmixer(input_shape=(None, None, 3), include_top=False)
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    for images in (IMAGES, IMAGES[:2, :16]):
        outputs = run(path, np.float32(images))
        assert relative_difference(outputs, model(images)) < 1e-5


@pytest.mark.parametrize("opset", [14, 15, 16, 17, 18, 21])
def test_other_opsets(exported, tmp_path, opset):
    model, path = exported
    converted = version_converter.convert_version(onnx.load(path), opset)
    onnx.save(converted, tmp_path / "converted.onnx")
    outputs = run(tmp_path / "converted.onnx", np.float32(IMAGES))
    assert relative_difference(outputs, model(IMAGES)) < 1e-5


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    """The packaged model's file, photographs, and its predictions."""
    path = tmp_path_factory.mktemp("packaged") / "model.onnx"
    export_onnx(ConvMixer256_8(), path)
    images = [
        photograph[row : row + 128 : 4, column : column + 128 : 4]
        for photograph in load_sample_images().images
        for row in range(0, 299, 100)
        for column in range(0, 512, 170)
    ]
    images = np.float32(images)
    expected = run(path, images)
    assert len(np.unique(expected.argmax(1))) >= 4
    return path, images, expected


def check_quantized(path, images, expected, limit):
    """Compares predictions by classes and by total variation distance."""
    outputs = run(path, images)
    assert np.mean(outputs.argmax(1) == expected.argmax(1)) >= 0.75
    assert np.abs(outputs - expected).sum(1).mean() / 2 < limit


def test_quantized_dynamically_by_onnxruntime(tmp_path, packaged):
    path, images, expected = packaged
    quantized = tmp_path / "quantized.onnx"
    quantization.quantize_dynamic(path, quantized)
    assert quantized.stat().st_size < 0.4 * path.stat().st_size
    check_quantized(quantized, images, expected, 0.15)


def test_quantized_statically_by_onnxruntime(tmp_path, packaged):
    path, images, expected = packaged

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.feeds = iter([{"image": image[None]} for image in images[::2]])

        def get_next(self):
            return next(self.feeds, None)

    quantized = tmp_path / "quantized.onnx"
    quantization.quantize_static(
        path,
        quantized,
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
    )
    check_quantized(quantized, images, expected, 0.2)


@pytest.mark.slow
def test_int8(tmp_path, packaged):
    path, images, expected = packaged
    quantized, model = tmp_path / "quantized.onnx", ConvMixer256_8()
    export_onnx(
        model,
        quantized,
        pixels="uint8",
        quantization="int8",
        calibration_images=images[::2],
    )
    assert quantized.stat().st_size < 0.4 * path.stat().st_size
    check_quantized(quantized, np.uint8(images), expected, 0.1)
    with open_runtime(quantized) as runtime:
        assert runtime.description["quantization"] == "int8"
        assert not runtime.description["custom_operators"]
    with pytest.raises(ValueError, match="needs `calibration_images`"):
        export_onnx(model, tmp_path / "other.onnx", quantization="int8")
    with pytest.raises(ValueError, match='needs `quantization="int8"`'):
        export_onnx(model, tmp_path / "m.onnx", calibration_images=images)
    with pytest.raises(ValueError, match=r"must be one of .*'int8'\)"):
        export_onnx(model, tmp_path / "other.onnx", quantization="int4")
    with pytest.raises(ValueError, match=r"must stay in float32"):
        export_onnx(
            model, tmp_path / "other.onnx", plain=True, quantization="int8"
        )


@pytest.mark.peer
@pytest.mark.parametrize("optimized", ["all", "none"])
def test_onnxruntime_at_optimization_levels_and_batch_sizes(
    exported, optimized
):
    model, path = exported
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimized == "none":
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(str(path), options)
    for count in (1, 2, 5):
        images = np.float32(IMAGES[:count])
        (outputs,) = session.run(None, {"image": images})
        assert relative_difference(outputs, model(images)) < 1e-5


@pytest.mark.peer
def test_openvino_computes_the_same_at_any_size(tmp_path):
    pytest.importorskip("openvino", reason="needs openvino")
    model, path = convmixer(input_shape=(None, None, 3)), tmp_path / "m.onnx"
    export_onnx(model, path, pixels="uint8")
    for runtime, limit in (("openvino", 1e-5), ("openvino_bfloat16", 0.05)):
        with open_runtime(path, runtime=runtime) as opened:
            for images in (IMAGES, IMAGES[:1, :16]):
                outputs, _ = opened.run(np.float32(images))
                assert relative_difference(outputs, model(images)) < limit
    with pytest.raises(ValueError, match="is for the runtime onnxruntime"):
        open_runtime(path, runtime="litert").__enter__()
    path.write_bytes(b"no ONNX")
    with pytest.raises(ValueError, match="OpenVINO can't run"):
        open_runtime(path, runtime="openvino").__enter__()


def test_a_channel_that_the_normalization_ends(tmp_path):
    model, path = convmixer(), tmp_path / "model.onnx"
    for norm in (
        model.get_layer("patch_embed").norm,
        model.get_layer("block_0").depthwise_norm,
    ):
        gamma = norm.gamma.numpy()
        gamma[:3] = 0, 1e-42, -1e-30
        norm.gamma.assign(gamma)
    export_onnx(model, path)
    outputs = run(path, np.float32(IMAGES))
    assert relative_difference(outputs, model(IMAGES)) < 1e-5
    for tensor in onnx.load(path).graph.initializer:
        assert np.isfinite(onnx.numpy_helper.to_array(tensor)).all()


KERAS_ACTIVATIONS = [
    "celu",
    "elu",
    "exponential",
    "gelu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softmax",
    "softplus",
    "softsign",
    "sparse_plus",
    "sparse_sigmoid",
    "squareplus",
    "tanh",
    "tanh_shrink",
]
ACTIVATIONS = {
    name: getattr(keras.activations, name) for name in KERAS_ACTIVATIONS
} | {
    "gelu, approximate": lambda x: keras.activations.gelu(x, approximate=True),
    "relu, capped": lambda x: keras.activations.relu(x, 0.1, 4, 1),
    "a layer": keras.layers.LeakyReLU(),
    "our own": doubled,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    activation = ACTIVATIONS[name]
    graph = Graph()
    output = graph.add(
        "Identity", write_activation(graph, "image", activation, 2)
    )
    shape = ("batch", 6)
    model = graph.model(
        "one", onnx_export.OPSET, "float32", shape, output, shape
    )
    onnx.checker.check_model(model, full_check=True)
    values = np.linspace(-5, 5, 48, dtype="float32").reshape(8, 6)
    outputs = onnxruntime.InferenceSession(model.SerializeToString()).run(
        None, {"image": values}
    )[0]
    expected = activation(keras.ops.convert_to_tensor(values))
    assert np.abs(outputs - expected).max() < 2e-6 * max(1, np.max(expected))


def test_an_activation_that_onnx_does_not_have(tmp_path):
    def truncated(x):
        return keras.ops.cast(keras.ops.cast(x, "int32"), x.dtype)

    model = convmixer(activation=truncated)
    with pytest.raises(
        ValueError, match=r"truncated.* TensorFlow operation Cast"
    ):
        export_onnx(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_class_names(tmp_path):
    path, names = tmp_path / "model.onnx", ["a", "b", "c", "d", "é"]
    export_onnx(convmixer(), path, class_names=names)
    found = session(path).get_modelmeta().custom_metadata_map["class_names"]
    assert json.loads(found) == names
    for single in ("b", "a b"):
        model = convmixer(classes=1, classifier_activation="sigmoid")
        export_onnx(model, path, class_names=single.split(), overwrite=True)
    for model, many in (
        (convmixer(), names[:4]),
        (convmixer(include_top=False), names),
    ):
        with pytest.raises(ValueError, match="class names, one line"):
            export_onnx(model, path, class_names=many, overwrite=True)


def deep_head(**arguments):
    """A classifier that `deploy` does not accept."""
    body = convmixer(include_top=False, pooling="avg", **arguments)
    return keras.Sequential(
        [
            keras.Input((24, 20, 3)),
            keras.layers.RandomFlip(),
            keras.layers.RandomRotation(0.2),
            body,
            keras.layers.Dense(8, "gelu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(4),
        ]
    )


@pytest.mark.parametrize("pixels", onnx_export.PIXELS)
def test_plain(tmp_path, pixels):
    model, path = deep_head(), tmp_path / "model.onnx"
    with pytest.raises(ValueError, match="pass plain=True to"):
        export_onnx(model, path)
    assert not path.exists()
    export_onnx(
        model, path, plain=True, pixels=pixels, class_names=list("abcd")
    )
    outputs = run(path, IMAGES.astype(pixels))
    expected = model(IMAGES, training=False)
    assert relative_difference(outputs, expected) < 1e-5
    (image,) = session(path).get_inputs()
    assert image.shape == ["batch", 24, 20, 3]
    export_onnx(model, path, plain=True, dynamic_batch=False, overwrite=True)
    assert session(path).get_inputs()[0].shape[0] == 1


def test_plain_leaves_no_broken_file(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_plain, "_write_erfc", lambda *arguments: None)
    with pytest.raises(ValueError, match=r"can't be converted.*No Op regist"):
        export_onnx(deep_head(), tmp_path / "model.onnx", plain=True)
    assert list(tmp_path.iterdir()) == []


def test_errors_leave_no_file(tmp_path, monkeypatch):
    model = deploy(convmixer())
    with pytest.raises(ValueError, match="ConvMixer"):
        export_onnx(model, tmp_path / "model.onnx")
    raw = convmixer(include_preprocessing=False)
    with pytest.raises(ValueError, match=r"must take pixels in \[0, 255\]"):
        export_onnx(raw, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="`pixels` must be one of"):
        export_onnx(model, tmp_path / "model.onnx", pixels="int8")
    with pytest.raises(ValueError, match=r"must end in \.onnx"):
        export_onnx(model, tmp_path / "model.tflite")

    refused = []

    def refuse(name, *arguments):
        if name in refused:
            raise ModuleNotFoundError(name)
        return original(name, *arguments)

    original = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", refuse)
    remedies = {"onnx": r"convmixer_tf\[export\]", "tf2onnx": "tf2onnx"}
    for missing, remedy in remedies.items():
        refused[:] = [missing]
        with pytest.raises(ImportError, match=f"pip install .*{remedy}"):
            export_onnx(deep_head(), tmp_path / "model.onnx", plain=True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_on_request_only(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="pass `--overwrite`"):
        export_onnx(convmixer(), path)
    assert path.read_bytes() == b"precious"
