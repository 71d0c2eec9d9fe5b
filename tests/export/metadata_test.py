"""Tests metadata, also with other readers, and that models stay the same."""

import dataclasses
import shutil
import zipfile

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from sklearn.datasets import load_sample_images

from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import export_tflite
from convmixer_tf.export import read_metadata
from convmixer_tf.export.metadata import TFLiteMetadata
from convmixer_tf.export.metadata import write_metadata
from convmixer_tf.models import ConvMixer
from convmixer_tf.models.additions import read_crop_fraction
from tests.helpers import asymmetric_image
from tests.helpers import randomize

IMAGES = asymmetric_image(24, 20, batch=20)
NAMES = ("cat", "dög", "eel, or snake", "狐", " gnu")
METADATA = TFLiteMetadata(
    "ConvMixer-16/2",
    description="Five animals, größer than 1 cm.",
    version="1.2",
    author="Someone",
    license="MIT",
    class_names=NAMES,
    crop_fraction=0.875,
)


@pytest.fixture(scope="module")
def model():
    model = ConvMixer(16, 2, 3, 4, input_shape=(24, 20, 3), classes=5)
    return randomize(model)


@pytest.fixture(
    scope="module",
    params=["float32", pytest.param("int8", marks=pytest.mark.large)],
)
def exported(request, model, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.tflite"
    images = IMAGES if request.param == "int8" else None
    export_tflite(
        model, path, quantization=request.param, calibration_images=images
    )
    return path


@pytest.fixture
def path(exported, tmp_path):
    return shutil.copy(exported, tmp_path / "model.tflite")


def test_it_is_read_as_it_was_written(path):
    write_metadata(path, METADATA)
    assert read_metadata(path) == METADATA
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["labels.txt", "evaluation.json"]
        labels = archive.read("labels.txt").decode()
        evaluation = archive.read("evaluation.json").decode()
    assert evaluation == '{"crop_fraction": 0.875}'
    assert read_crop_fraction(path) == 0.875
    assert labels == "cat\ndög\neel, or snake\n狐\n gnu\n"


def test_what_the_file_computes_stays_the_same(path):
    before, size = LiteRTModel(path).predict(IMAGES), path.stat().st_size
    write_metadata(path, METADATA)
    np.testing.assert_array_equal(LiteRTModel(path).predict(IMAGES), before)
    assert path.stat().st_size < size + 3000


def test_weights_are_aligned(path):
    write_metadata(path, METADATA)
    model = schema.Model.GetRootAs(path.read_bytes())
    buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
    vectors = [
        buffer._tab.Vector(buffer._tab.Offset(4))
        for buffer in buffers
        if buffer.DataLength()
    ]
    assert len(vectors) > 15
    assert not np.any(np.remainder(vectors, 16))


def test_metadata_are_replaced(path):
    write_metadata(path, dataclasses.replace(METADATA, name="Another"))
    size = path.stat().st_size
    for normalized in (
        METADATA,
        dataclasses.replace(METADATA, mean=(1.5,), std=(2.0, 3.0, 4.5)),
    ):
        write_metadata(path, normalized)
        assert read_metadata(path) == normalized
        assert abs(path.stat().st_size - size) < 100
    others = {b"min_runtime_version", b"CONVERSION_METADATA"}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    names = [entry.name for entry in model.metadata]
    assert sorted(names) == sorted({*others, b"TFLITE_METADATA"})


def test_class_names_may_be_left_out(path):
    plain = TFLiteMetadata("Nameless")
    write_metadata(path, METADATA)
    write_metadata(path, plain)
    assert read_metadata(path) == plain
    assert not zipfile.is_zipfile(path)


def test_wrong_class_names(path):
    content = path.read_bytes()
    for names, message in (
        (
            NAMES[:4],
            "must be 5 class names, .* each output.*Received: 4, such as",
        ),
        ((), "Received: 0"),
        ("abcde", r"must be 5 .*such as \['a'\], in a str"),
        (range(5), r"one line of text.*\[0\]"),
        (("a", "b", "c\nd", "e", "f"), r"one line of text.*\['c\\nd'\]"),
        (("a", "b", " ", "e", "f"), r"one line of text.*\[' '\]"),
    ):
        with pytest.raises(ValueError, match=message):
            write_metadata(path, TFLiteMetadata("Bad", class_names=names))
    assert path.read_bytes() == content


def test_other_files(path):
    content = path.read_bytes()
    for bad in (
        b"",
        b"not a model",
        content[:20],
        content[: len(content) // 2],
    ):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="not a complete TFLite file"):
            write_metadata(path, METADATA)
        with pytest.raises(ValueError, match="not a complete TFLite file"):
            read_metadata(path)
        assert path.read_bytes() == bad
    path.unlink()
    with pytest.raises(FileNotFoundError):
        write_metadata(path, METADATA)
    with pytest.raises(FileNotFoundError):
        read_metadata(path)


def test_a_file_that_is_cut_off_behind_the_model(path):
    write_metadata(path, METADATA)
    content = path.read_bytes()
    for missing in (1, 30, 100):
        path.write_bytes(content[:-missing])
        with pytest.raises(
            ValueError, match="TFLite file is incomplete: its meta"
        ):
            read_metadata(path)


def test_other_models(tmp_path):
    model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(2)])
    path = tmp_path / "dense.tflite"
    model.export(str(path), format="litert", verbose=False)
    with pytest.raises(ValueError, match=r"one image.*\[\(1, 7\)\]"):
        write_metadata(path, METADATA)


@pytest.mark.peer
def test_mediapipe_reads_what_we_write(path):
    pytest.importorskip("mediapipe", reason="needs mediapipe")
    from mediapipe.tasks.metadata import metadata_schema_py_generated as peer

    write_metadata(path, METADATA)
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    (number,) = (
        entry.buffer
        for entry in model.metadata
        if entry.name == b"TFLITE_METADATA"
    )
    content = model.buffers[number].data.tobytes()
    assert peer.ModelMetadata.ModelMetadataBufferHasIdentifier(content, 0)
    root = peer.ModelMetadataT.InitFromPackedBuf(content)
    texts = (root.name, root.description, root.version)
    assert texts == (
        b"ConvMixer-16/2",
        "Five animals, größer than 1 cm.".encode(),
        b"1.2",
    )
    assert (root.author, root.license) == (b"Someone", b"MIT")
    (evaluation,) = root.associatedFiles
    assert evaluation.name == b"evaluation.json"
    assert evaluation.type == peer.AssociatedFileType.UNKNOWN
    (graph,) = root.subgraphMetadata
    (image,), (scores,) = graph.inputTensorMetadata, graph.outputTensorMetadata
    assert (image.name, scores.name) == (b"image", b"scores")
    assert image.description == b"20 x 24 pixels, 3 channels, in [0, 255]."
    properties = image.content.contentProperties
    assert properties.colorSpace == peer.ColorSpaceType.RGB
    (step,) = image.processUnits
    assert (step.options.mean, step.options.std) == ([0], [1])
    assert (image.stats.min, image.stats.max) == ([0], [255])
    assert isinstance(scores.content.contentProperties, peer.FeaturePropertiesT)
    (labels,) = scores.associatedFiles
    assert labels.name == b"labels.txt"
    assert labels.type == peer.AssociatedFileType.TENSOR_AXIS_LABELS


def photographs():
    """224 x 224 crops of scikit-learn's two photographs."""
    crops = [
        image[top : top + 224, left : left + 224]
        for image in load_sample_images().images
        for top in range(0, 203, 40)
        for left in range(0, 416, 52)
    ]
    return np.stack(crops)


@pytest.mark.peer
@pytest.mark.parametrize(
    ("quantization", "output_dtype"),
    [
        ("float32", "float32"),
        ("dynamic", "float32"),
        ("int8", "float32"),
        ("int8", "uint8"),
    ],
)
def test_mediapipe_classifies_as_we_do(quantization, output_dtype, tmp_path):
    mediapipe = pytest.importorskip("mediapipe", reason="needs mediapipe")
    from mediapipe.tasks.python import BaseOptions
    from mediapipe.tasks.python import vision

    images = photographs()
    model = ConvMixer(32, 2, 5, 14, classes=5, classifier_activation=None)
    randomize(model)
    # Centered, so that all classes occur.
    head = model.get_layer("predictions")
    head.bias.assign_sub(np.mean(model.predict(images, verbose=0), axis=0))
    path = tmp_path / "model.tflite"
    export_tflite(
        model,
        path,
        quantization=quantization,
        calibration_images=images[::4] if quantization == "int8" else None,
        output_dtype=output_dtype,
        class_names=NAMES,
        crop_fraction=0.9,
    )
    expected = LiteRTModel(path).predict(images)
    assert len(np.unique(expected.argmax(-1))) > 2

    options = vision.ImageClassifierOptions(
        base_options=BaseOptions(model_asset_path=str(path)), max_results=1
    )
    with vision.ImageClassifier.create_from_options(options) as classifier:
        tops = []
        for image in images:
            image = mediapipe.Image(
                image_format=mediapipe.ImageFormat.SRGB,
                data=np.ascontiguousarray(image),
            )
            (category,) = (
                classifier.classify(image).classifications[0].categories
            )
            tops.append(
                (category.index, category.category_name, category.score)
            )
    indices, names, scores = zip(*tops, strict=True)
    assert np.mean(indices == expected.argmax(-1)) >= 0.99
    assert [NAMES[index] for index in indices] == list(names)
    np.testing.assert_allclose(scores, expected.max(-1), atol=1e-5)
