"""Tests verification with correct, wrong and broken files."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.export import Limits
from convmixer_tf.export import deploy
from convmixer_tf.export import export_onnx
from convmixer_tf.export import export_tflite
from convmixer_tf.export import verify
from convmixer_tf.export.tflite_model import describe_tflite
from convmixer_tf.export.verification import saved_model_worker
from convmixer_tf.export.verification.limits import default_limits
from convmixer_tf.export.verification.verify import MIN_IMAGES
from convmixer_tf.export.verification.verify import _findings
from convmixer_tf.export.verification.verify import compare_classifiers
from convmixer_tf.models import ConvMixer
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import run_python

CLASSES = 5
IMAGES = asymmetric_image(24, 20, batch=40)
# Images that differ by more than noise: each has a different brightness.
IMAGES = np.uint8(IMAGES * np.linspace(0.1, 1, 40)[:, None, None, None])


def convmixer(seed=0, kernel_size=3, **arguments):
    """A model that predicts each class for some images."""
    arguments = {
        "input_shape": (24, 20, 3),
        "classes": CLASSES,
        "classifier_activation": None,
        **arguments,
    }
    model = randomize(ConvMixer(16, 2, kernel_size, 4, **arguments), seed)
    if model.layers[-1].name == "predictions":
        _center(model)
    return model


def _center(model):
    dense = model.layers[-1]
    features = keras.Model(model.inputs, dense.input)
    logits = features.predict(IMAGES, verbose=0) @ dense.kernel.numpy()
    dense.kernel.assign(3 * dense.kernel / logits.std())
    dense.bias.assign(-3 * logits.mean(axis=0) / logits.std())


@pytest.fixture(scope="module")
def model():
    return convmixer()


@pytest.fixture(scope="module")
def tflite(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("tflite") / "model.tflite"
    export_tflite(model, path, plain=True)
    return path


@pytest.fixture(scope="module")
def artifacts(model, tflite, tmp_path_factory):
    """One of each format."""
    folder = tmp_path_factory.mktemp("artifacts")
    export_onnx(model, folder / "model.onnx")
    model.save(folder / "model.keras")
    deploy(model).export(folder / "saved_model", verbose=False)
    shutil.copy(tflite, folder)
    return folder


def test_a_right_file(model, tflite):
    best = np.argmax(model.predict(IMAGES, verbose=0), axis=-1)
    labels = best.copy()
    labels[:10] = (labels[:10] + 1) % CLASSES  # wrong
    labels[30:] = -1  # unknown
    report = verify(model, tflite, IMAGES, labels)
    assert report.passed
    assert report.agreement == 1
    assert report.classes_seen == len(np.unique(best)) > 2
    assert (report.images, report.labeled) == (40, 30)
    assert report.accuracy == {"model": 2 / 3, "artifact": 2 / 3}
    assert 0 < report.differences["logits"]["max"] < 1e-4
    assert report.differences["probabilities"]["max"] < 1e-5
    assert report.size == tflite.stat().st_size
    assert (report.quantization, report.custom_operators) == ("float32", [])
    assert report.operators["DEPTHWISE_CONV_2D"] == 2
    assert report.delegation == {"partitions": 1, "not_delegated": {}}
    assert report.inputs == [
        {
            "name": "image",
            "shape": [1, 24, 20, 3],
            "dtype": "float32",
            "scale": None,
            "zero_point": None,
        }
    ]
    assert json.loads(json.dumps(report.to_dict()))["passed"]
    assert "| within limits |" in report.table()


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("model.onnx", "onnxruntime"),
        ("model.keras", "keras"),
    ],
)
def test_other_kinds(model, artifacts, name, runtime):
    report = verify(model, artifacts / name, IMAGES)
    assert report.passed, report.broken
    assert report.agreement == 1
    assert report.runtime.startswith(runtime)
    assert report.size > 4 * model.count_params() * 0.9
    assert report.accuracy is None
    assert report.inputs[0]["shape"] == [None, 24, 20, 3]
    assert len(report.operators) > 3


@pytest.mark.large
def test_a_saved_model(model, artifacts):
    report = verify(model, artifacts / "saved_model", IMAGES)
    assert report.passed, report.broken
    assert report.agreement == 1
    assert report.operators["DepthwiseConv2dNative"] >= 2
    assert report.inputs[0]["shape"] == [None, 24, 20, 3]


@pytest.mark.large  # Each starts a process that imports TensorFlow.
def test_saved_models_that_do_not_fit(model, artifacts, tmp_path):
    path = artifacts / "saved_model"
    images = asymmetric_image(20, 24, batch=MIN_IMAGES)
    with pytest.raises(ValueError, match=r"images of shape \(24, 20, 3\)"):
        verify(model, path, images)
    with pytest.raises(ValueError, match="no signature 'serve_jpeg', but"):
        verify(model, path, IMAGES, signature="serve_jpeg")
    damaged = shutil.copytree(path, tmp_path / "damaged")
    truncate(damaged / "saved_model.pb")
    with pytest.raises(ValueError, match="The SavedModel does not run"):
        verify(model, damaged, IMAGES)


def truncate(path):
    with open(path, "r+b") as file:
        file.truncate(file.seek(0, 2) // 2)


@pytest.mark.large
def test_a_saved_model_is_loaded_without_our_package():
    path = saved_model_worker.__file__
    printed = run_python(
        "import runpy, sys\n"
        "runpy.run_path(sys.argv[1])['hide_our_package']()\n"
        "try: import convmixer_tf\n"
        "except ImportError: print('not here')",
        path,
    )
    assert printed == "not here\n"


def test_another_models_file(tflite):
    report = verify(convmixer(seed=1), tflite, IMAGES)
    assert set(report.broken) == {
        "min_agreement",
        "max_difference",
        "max_mean_difference",
        "max_total_variation",
    }
    assert not report.passed
    assert "agreement" in report.table().splitlines()[-1]


@pytest.mark.slow
def test_accuracy_alone_can_break_a_limit(model, tflite):
    other = convmixer(seed=1)
    labels = np.argmax(other.predict(IMAGES, verbose=0), axis=-1)
    off = dict.fromkeys(
        (
            "min_agreement",
            "max_difference",
            "max_mean_difference",
            "max_total_variation",
        )
    )
    report = verify(other, tflite, IMAGES, labels, limits=off)
    assert report.limits.max_accuracy_loss == 0.001
    assert set(report.broken) == {"max_accuracy_loss"}
    assert report.accuracy["model"] == 1


@pytest.mark.slow
def test_a_wrong_file_of_many_classes(tmp_path):
    """With many classes, the mean difference is small for any file."""
    export_tflite(convmixer(classes=300), tmp_path / "model.tflite")
    other = convmixer(seed=1, classes=300)
    limits = default_limits("int8")
    report = verify(other, tmp_path / "model.tflite", IMAGES, limits=limits)
    assert set(report.broken) == {"min_agreement", "max_total_variation"}
    found = report.differences["probabilities"]
    assert found["total_variation"] == pytest.approx(150 * found["mean"])
    assert found["total_variation"] > 2 * limits.max_total_variation
    assert f"total variation {found['total_variation']:.3g}" in report.table()


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_a_single_output(tmp_path, activation):
    model = convmixer(classes=1, classifier_activation=activation)
    path = tmp_path / "model.tflite"
    export_tflite(model, path)
    yes = np.ones(40, int)
    report = verify(model, path, IMAGES, yes)
    assert report.passed, report.broken
    assert (report.agreement, report.classes_seen) == (1, 2)
    share = report.accuracy["model"]
    assert 0.2 < share < 0.8
    threshold = 0 if activation is None else 0.5
    said = model.predict(np.float32(IMAGES), verbose=0) > threshold
    assert share == said.mean()
    dense = model.layers[-1]
    dense.set_weights([-weight for weight in dense.get_weights()])
    report = verify(model, path, IMAGES, yes)
    assert report.agreement == 0
    assert report.accuracy["model"] == pytest.approx(1 - share)
    assert report.accuracy["artifact"] == share
    low, high = report.accuracy_loss_interval
    assert low < 1 - 2 * share < high
    assert report.differences["probabilities"]["total_variation"] > 0.2


def test_how_many_images_there_are_counts():
    """Tests which agreements are significantly below .95."""
    for quantization, count, same, passes in (
        ("int8", 150, 143, True),
        ("int8", 150, 141, True),
        ("int8", 150, 132, False),
        ("int8", 15_000, 14_100, False),
        ("float16", 100, 99, True),
        ("float16", 100, 97, False),
        ("float16", 10_000, 9_980, False),
    ):
        limits = default_limits(quantization)
        expected = np.eye(2)[np.zeros(count, int)]
        actual = np.eye(2)[(np.arange(count) >= same).astype(int)]
        found = compare_classifiers(
            actual, expected, np.full(count, -1), "softmax"
        )
        low, high = found["agreement_interval"]
        assert low < found["agreement"] < high
        findings = {**_findings(found), "custom_operators": []}
        broken = limits.broken_by(findings)
        assert ("min_agreement" not in broken) == passes


def test_limits_are_named_one_by_one():
    kept = {
        "agreement": 0.99,
        "max_difference": 0.01,
        "mean_difference": 0.001,
        "accuracy_loss": 0.005,
        "total_variation": 0.03,
        "custom_operators": [],
    }
    limits = Limits(0.99, 0.01, 0.001, 0.005, 0.03)
    assert limits.broken_by(kept) == {}
    for finding, value, name in (
        ("agreement", 0.98, "min_agreement"),
        ("agreement", float("nan"), "min_agreement"),
        ("max_difference", 0.02, "max_difference"),
        ("max_difference", float("nan"), "max_difference"),
        ("mean_difference", 0.002, "max_mean_difference"),
        ("accuracy_loss", 0.006, "max_accuracy_loss"),
        ("total_variation", 0.04, "max_total_variation"),
        ("custom_operators", ["FlexErf"], "builtin_only"),
    ):
        found = {**kept, finding: value}
        assert set(limits.broken_by(found)) == {name}
        off = False if name == "builtin_only" else None
        tolerant = dataclasses.replace(limits, **{name: off})
        assert tolerant.broken_by(found) == {}
    few = {**kept, "agreement": 0.98, "accuracy_loss": 0.02}
    few["intervals"] = {"agreement": (0.9, 0.995), "accuracy_loss": (-0.01, 1)}
    assert limits.broken_by(few) == {}
    few["intervals"] = {"agreement": (0.9, 0.989), "accuracy_loss": (0.006, 1)}
    broken = limits.broken_by(few)
    assert set(broken) == {"min_agreement", "max_accuracy_loss"}
    assert "0.98 (95 % interval 0.9 to 0.989) is b" in broken["min_agreement"]
    with pytest.raises(ValueError, match=r"`min_agreement` must be None or"):
        Limits(min_agreement=99)
    with pytest.raises(
        ValueError, match="`quantization` must be one of float32"
    ):
        default_limits("int2")


def convert(model, path, images=None, dtype=None):
    """Quantizes as a user of the plain converter would."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if dtype:
        converter.target_spec.supported_types = [dtype]
    path.write_bytes(converter.convert())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantization", "left"),
    [
        ("float16", {}),
        ("dynamic", {"DEPTHWISE_CONV_2D": 2}),
        pytest.param(
            "int8",
            {"GELU": 5, "QUANTIZE": 1},
            marks=pytest.mark.large,
        ),
    ],
)
def test_number_formats_and_what_xnnpack_leaves(tmp_path, quantization, left):
    model, path = convmixer(kernel_size=9), tmp_path / "model.tflite"
    if quantization == "int8":
        export_tflite(
            model,
            path,
            quantization="int8",
            calibration_images=IMAGES,
            plain=True,
        )
    else:
        convert(model, path, dtype={"float16": tf.float16}.get(quantization))
    found = describe_tflite(path)
    assert found["quantization"] == quantization
    assert found["delegation"]["not_delegated"] == left
    report = verify(model, path, IMAGES)
    assert report.limits == default_limits(quantization)
    assert 0 < report.differences["logits"]["max_relative"] < 0.5
    if quantization == "int8":
        assert report.inputs[0]["dtype"] == "uint8"
        assert report.inputs[0]["scale"] == 1
        assert report.inputs[0]["zero_point"] == 0


@pytest.mark.slow
def test_4_bits(model, tmp_path):
    path = tmp_path / "model.tflite"
    export_tflite(model, path, quantization="int4")
    report = verify(model, path, IMAGES)
    assert report.quantization == "int4"
    assert report.limits == default_limits("int4")


@pytest.mark.parametrize("arguments", [{"rounds": 0}, {"plain": "x.tflite"}])
def test_latency_is_no_longer_measured(model, tflite, arguments):
    with pytest.warns(DeprecationWarning, match=r"Use export/benchmark\.py"):
        report = verify(model, tflite, IMAGES, **arguments)
    assert report.passed
    assert "latency" not in report.to_dict()


@pytest.mark.large
def test_half_precision_is_compared_as_it_is_exported(model, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    half = convmixer()
    keras.config.set_dtype_policy("float32")
    export_tflite(half, tmp_path / "model.tflite")
    report = verify(half, tmp_path / "model.tflite", IMAGES)
    assert report.passed, report.broken


@pytest.mark.slow
def test_litert_compiled_model_computes_the_same(model, tflite, tmp_path):
    ours = verify(model, tflite, IMAGES)
    report = verify(model, tflite, IMAGES, runtime="litert_compiled")
    assert report.runtime.endswith("CompiledModel")
    assert report.differences == ours.differences
    (tmp_path / "text.tflite").write_text("not a model")
    with pytest.raises(ValueError, match="is not a complete TFLite file"):
        verify(
            *(model, tmp_path / "text.tflite", IMAGES),
            runtime="litert_compiled",
        )


@pytest.mark.peer
def test_mediapipe(model, tmp_path):
    pytest.importorskip("mediapipe", reason="needs mediapipe")
    softmax = keras.layers.Activation("softmax")(model.output)
    model = keras.Model(model.inputs, softmax)
    path = tmp_path / "model.tflite"
    export_tflite(
        *(model, path),
        quantization="int8",
        calibration_images=IMAGES,
        plain=True,
    )
    ours = verify(model, path, IMAGES)
    report = verify(model, path, IMAGES, runtime="mediapipe")
    assert report.runtime.startswith("mediapipe")
    assert report.differences == ours.differences
    assert report.agreement == ours.agreement > 0.5
    (tmp_path / "text.tflite").write_text("not a model")
    with pytest.raises(ValueError, match="is not a complete TFLite file"):
        verify(model, tmp_path / "text.tflite", IMAGES, runtime="mediapipe")


@pytest.mark.slow
def test_features(tmp_path):
    body = convmixer(include_top=False, pooling="avg")
    path = tmp_path / "body.tflite"
    export_tflite(body, path)
    report = verify(body, path, IMAGES, features=True)
    assert report.passed
    assert report.agreement is None
    assert 0 < report.differences["features"]["max_relative"] < 1e-5
    other = convmixer(1, include_top=False, pooling="avg")
    report = verify(other, path, IMAGES, features=True)
    assert set(report.broken) == {"max_difference", "max_mean_difference"}


@pytest.mark.slow
def test_an_artifact_whose_white_is_1(model, tmp_path):
    images = keras.Input((24, 20, 3))
    outputs = model(keras.layers.Rescaling(255.0)(images))
    path = tmp_path / "scaled.keras"
    keras.Model(images, outputs).save(path)
    assert verify(model, path, IMAGES, max_pixel=1).passed
    assert not verify(model, path, IMAGES).passed


def test_an_operator_that_the_runtime_lacks(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec((1, 4, 4, 3))])
    def invert(image):
        return tf.linalg.inv(image[..., 0])

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [invert.get_concrete_function()], invert
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.SELECT_TF_OPS]
    path = tmp_path / "flex.tflite"
    path.write_bytes(converter.convert())
    with pytest.raises(ValueError, match=r"not built into .*FlexMatrixInv"):
        describe_tflite(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.tflite", "is not a complete TFLite file"),
        ("model.onnx", "is not a complete ONNX file"),
        ("model.keras", "Cannot read a model from"),
    ],
)
def test_damaged_artifacts(model, artifacts, tmp_path, name, message):
    path = shutil.copy(artifacts / name, tmp_path)
    truncate(path)
    with pytest.raises(ValueError, match=message):
        verify(model, path, IMAGES)


@pytest.mark.parametrize("name", ["model.tflite", "model.onnx", "model.keras"])
def test_images_of_another_size(model, artifacts, name):
    images = asymmetric_image(20, 24, batch=MIN_IMAGES)
    with pytest.raises(ValueError, match=r"(shape|images) .*24, 20, 3\)"):
        verify(model, artifacts / name, images)


def test_other_classes(tflite):
    with pytest.raises(ValueError, match="may be from another model"):
        verify(convmixer(classes=4), tflite, IMAGES)


def test_arguments_that_make_no_sense(model, tflite, tmp_path):
    zeros = np.zeros(40, int)
    for images, labels, message in (
        (IMAGES[: MIN_IMAGES - 1], None, "`images` must be at least 10"),
        (IMAGES[:0], None, "`images` must be at least 10"),
        (IMAGES / 255, None, r"must be pixels in \[0, 255\]"),
        (IMAGES, zeros[:9], "`labels` must be 40 integers"),
        (IMAGES, zeros + 0.5, "`labels` must be 40 integers"),
        (IMAGES, zeros + CLASSES, "`labels` must be below 5"),
    ):
        with pytest.raises(ValueError, match=message):
            verify(model, tflite, images, labels)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        verify(model, tmp_path / "model.tflite", IMAGES)
    (tmp_path / "model.h5").touch()
    with pytest.raises(ValueError, match=r"ending in \.keras, \.onnx, \.tf"):
        verify(model, tmp_path / "model.h5", IMAGES)
    with pytest.raises(ValueError, match="is for the runtime litert"):
        verify(model, tflite, IMAGES, runtime="onnxruntime")
