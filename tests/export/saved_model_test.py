"""Tests SavedModels with TensorFlow alone."""

import io
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convmixer_tf.data import decode_image
from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.export import export_saved_model
from convmixer_tf.models import ConvMixer
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import relative_difference
from tests.helpers import run_python

IMAGES = asymmetric_image(24, 24, batch=5)
NAMES = ("ant", "bee", "cat", "dog", "élan")
# The signature for files is not traced because it takes longest.
NOT_SQUARE = (24, 20, 3)


def build(shape=(24, 24, 3), classes=5, **arguments):
    arguments = {"input_shape": shape, "classes": classes, **arguments}
    return randomize(ConvMixer(16, 2, 3, 4, **arguments))


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model"
    export_saved_model(model, path, class_names=NAMES, top=3)
    return path


def run(path, signature="serving_default", **inputs):
    loaded = tf.saved_model.load(path)
    return loaded.signatures[signature](
        **{name: tf.constant(value) for name, value in inputs.items()}
    )


def encode(image, mode, kind, **options):
    stream = io.BytesIO()
    Image.fromarray(image).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def files():
    """Files of five formats with different sizes and shapes."""
    sizes = [(40, 31), (24, 24), (90, 33), (10, 17), (26, 200)]
    images = [asymmetric_image(*size, batch=1)[0] for size in sizes]
    kinds = [
        ("RGB", "JPEG", {"quality": 90}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGBA", "PNG", {}),
        ("P", "GIF", {}),
    ]
    return [
        encode(image, mode, kind, **options)
        for image, (mode, kind, options) in zip(images, kinds, strict=True)
    ]


def pixels_of(encoded, size=24, crop_fraction=0.96):
    return np.stack(
        [
            resize_and_center_crop(decode_image(file), size, crop_fraction)
            for file in encoded
        ]
    )


def test_pixels_give_what_the_model_gives(model, exported):
    expected = model(IMAGES)
    images = IMAGES.astype("float32")
    outputs = run(exported, images=images)
    assert set(outputs) == {"predictions"}
    assert outputs["predictions"].dtype == tf.float32
    assert relative_difference(outputs["predictions"], expected) < 1e-5
    outputs = run(exported, "serve_uint8", images=IMAGES)
    assert relative_difference(outputs["predictions"], expected) < 1e-5
    loaded = tf.saved_model.load(exported)
    assert relative_difference(loaded.serve(images[:1]), expected[:1]) < 1e-5
    assert [x.decode() for x in loaded.class_names().numpy()] == list(NAMES)


@pytest.mark.slow
def test_files_give_what_their_pixels_give(model, exported):
    encoded = files()
    expected = model(pixels_of(encoded)).numpy()
    outputs = run(exported, "serve_encoded", image_bytes=encoded)
    assert relative_difference(outputs["predictions"], expected) < 1e-5
    order = np.argsort(-expected, axis=1)[:, :3]
    np.testing.assert_array_equal(outputs["top_indices"], order)
    np.testing.assert_allclose(
        outputs["top_probabilities"],
        np.take_along_axis(expected, order, 1),
        atol=1e-6,
    )
    labels = [
        [x.decode() for x in row] for row in outputs["top_labels"].numpy()
    ]
    assert labels == [[NAMES[i] for i in row] for row in order]


@pytest.mark.slow
def test_a_broken_file_is_named(exported):
    good = files()
    batch = [good[0], good[0][:300], good[1], b"not an image"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"batch:.* \[1 3"):
        run(exported, "serve_encoded", image_bytes=batch)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"batch:.* \[0\]"):
        run(exported, "serve_encoded", image_bytes=[b""])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "squash", "crop_fraction"),
    [(None, tf.nn.softmax, 0.5), ("sigmoid", tf.identity, 1.0)],
)
def test_the_crop_asked_for_and_the_best(
    activation, squash, crop_fraction, tmp_path
):
    """The top classes have probabilities for any activation."""
    model = build(classifier_activation=activation, classes=3)
    export_saved_model(model, tmp_path / "m", crop_fraction=crop_fraction)
    outputs = run(tmp_path / "m", "serve_encoded", image_bytes=files())
    assert "top_labels" not in outputs
    expected = model(pixels_of(files(), crop_fraction=crop_fraction))
    assert relative_difference(outputs["predictions"], expected) < 1e-5
    assert relative_difference(model(pixels_of(files())), expected) > 1e-2
    best = np.sort(squash(expected), axis=1)[:, ::-1]
    assert relative_difference(outputs["top_probabilities"], best) < 1e-5


@pytest.mark.large
@pytest.mark.parametrize("activation", [None, "sigmoid"])
@pytest.mark.parametrize("names", [["dog"], ["cat", "dog"]])
def test_a_single_output_is_a_class_and_its_opposite(
    activation, names, tmp_path
):
    model = build(classes=1, classifier_activation=activation)
    export_saved_model(model, tmp_path / "model", class_names=names)
    outputs = run(tmp_path / "model", "serve_encoded", image_bytes=files())
    chance = model(pixels_of(files())).numpy()
    if activation is None:
        chance = 1 / (1 + np.exp(-chance))
    expected = np.concatenate([1 - chance, chance], 1)
    order = np.argsort(-expected, axis=1)
    np.testing.assert_array_equal(outputs["top_indices"], order)
    np.testing.assert_allclose(
        outputs["top_probabilities"], -np.sort(-expected, 1), atol=1e-6
    )
    known = [names[0] if len(names) > 1 else "not dog", "dog"]
    labels = outputs["top_labels"].numpy()
    found = [[label.decode() for label in row] for row in labels]
    assert found == [[known[i] for i in row] for row in order]


@pytest.mark.filterwarnings("ignore:.*softmax over axis")
def test_softmax_over_one_output_is_refused(tmp_path):
    model = build(classes=1, classifier_activation="softmax")
    with pytest.raises(ValueError, match="one output must not end in softmax"):
        export_saved_model(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_the_model_leaves_open_stays_open(tmp_path):
    """The image size. A second class tests a model without classifier."""
    model = build((None, None, 3), include_top=False)
    export_saved_model(model, tmp_path / "m", image_size=32)
    for height, width in ((24, 40), (9, 5)):
        images = asymmetric_image(height, width, batch=3).astype("float32")
        outputs = run(tmp_path / "m", images=images)["features"]
        assert relative_difference(outputs, model(images)) < 1e-5
    outputs = run(tmp_path / "m", "serve_encoded", image_bytes=files())
    assert set(outputs) == {"features"}
    expected = model(pixels_of(files(), 32))
    assert relative_difference(outputs["features"], expected) < 1e-5


@pytest.mark.parametrize("shape", [(24, 20, 3), (24, 24, 4)])
def test_images_that_no_file_holds_have_no_signature_for_files(shape, tmp_path):
    model = build(shape)
    export_saved_model(model, tmp_path / "m")
    images = asymmetric_image(*shape).astype("float32")
    outputs = run(tmp_path / "m", images=images)["predictions"]
    assert relative_difference(outputs, model(images)) < 1e-5
    signatures = tf.saved_model.load(tmp_path / "m").signatures
    assert set(signatures) == {"serving_default", "serve_uint8"}


@pytest.mark.parametrize(
    "policy",
    ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.large)],
)
def test_models_trained_in_half_precision(tmp_path, policy):
    images = IMAGES[:, :, :20].astype("float32")
    expected = build(NOT_SQUARE)(images)
    keras.config.set_dtype_policy(policy)
    half = build(NOT_SQUARE)
    assert half.get_layer("block_1").depthwise.compute_dtype in policy
    export_saved_model(half, tmp_path / "m")
    outputs = run(tmp_path / "m", images=images)
    assert relative_difference(outputs["predictions"], expected) < 1e-5


def test_a_body_in_half_precision(tmp_path):
    """In a model that otherwise computes in float32."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    body = build(NOT_SQUARE, include_top=False, pooling="avg")
    keras.config.set_dtype_policy("float32")
    body = keras.Model(body.input, body.output)
    dense = keras.layers.Dense(5, "softmax")
    model = keras.Sequential([keras.Input(NOT_SQUARE), body, dense])
    export_saved_model(model, tmp_path / "m")
    types = {
        node.attr["T"].type
        for function in functions_of(tmp_path / "m")
        for node in function.node_def
        if node.op in ("Conv2D", "DepthwiseConv2dNative")
    }
    assert types == {tf.float32.as_datatype_enum}


def functions_of(path):
    """The functions in a SavedModel's graph."""
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    content = (pathlib.Path(path) / "saved_model.pb").read_bytes()
    proto.ParseFromString(content)
    (graph,) = proto.meta_graphs
    return graph.graph_def.library.function


def test_the_graph_has_plain_operations(exported):
    operations = set()
    for function in functions_of(exported):
        assert not [name for name in function.attr if "Xla" in name]
        operations |= {node.op for node in function.node_def}
    assert {"Conv2D", "DepthwiseConv2dNative", "DecodeJpeg"} <= operations
    # A loop searches for the EXIF in a file.
    operations -= {"StatelessWhile"}
    wrong = ("PyFunc", "Gradient", "Backprop", "IdentityN", "While", "_Fused")
    assert not [x for x in operations if any(w in x for w in wrong)]


WITHOUT_PACKAGE = (
    "import sys; sys.modules['convmixer_tf'] = None\n"
    "import numpy as np, tensorflow as tf\n"
    "folder, images, outputs = sys.argv[1:]\n"
)


@pytest.mark.large
def test_it_needs_nothing_but_tensorflow(model, exported, tmp_path):
    np.save(tmp_path / "in.npy", IMAGES)
    run_python(
        WITHOUT_PACKAGE
        + "run = tf.saved_model.load(folder).signatures['serve_uint8']\n"
        "images = tf.constant(np.load(images))\n"
        "np.save(outputs, run(images=images)['predictions'])",
        *(exported, tmp_path / "in.npy", tmp_path / "out.npy"),
    )
    outputs = np.load(tmp_path / "out.npy")
    assert relative_difference(outputs, model(IMAGES)) < 1e-5


def test_errors_leave_nothing(model, tmp_path):
    free = build((None, None, 3))
    text = keras.Sequential([keras.Input((7,)), keras.layers.Dense(3)])
    relu = build(classifier_activation="relu")
    features = build(include_top=False)
    raw = build(include_preprocessing=False)
    nested = keras.Sequential([keras.Input((24, 24, 3)), raw])
    for bad, arguments, message in (
        (text, {}, r"`model` must be .* \(batch, height, width, channels\)"),
        ("model", {}, "Argument `model` must be a `keras.Model`"),
        (free, {}, "`image_size` is required because the"),
        (model, {"image_size": 32}, "must be that of the model, 24, or None"),
        (model, {"image_size": 0}, "`image_size` must be a positive integer"),
        (model, {"top": 0}, "Argument `top` must be a positive integer"),
        (model, {"class_names": NAMES[1:]}, "model's 5 classes. Received: 4"),
        (model, {"class_names": "abcde"}, "must be one string for each"),
        (features, {"class_names": NAMES}, "model's 0 classes. Received: 5"),
        (model, {"crop_fraction": 2}, "`crop_fraction`"),
        (raw, {}, r"take pixels in \[0, 255\]. .* include_preprocessing=True"),
        (nested, {}, "must take pixels"),
        (relu, {}, "activation None, softmax or sigmoid. Received: 'relu'"),
    ):
        with pytest.raises(ValueError, match=message):
            export_saved_model(bad, tmp_path / "m", **arguments)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        export_saved_model(model, tmp_path / "missing" / "m")
    keras.config.set_image_data_format("channels_first")
    with pytest.raises(ValueError, match="must be channels-last"):
        export_saved_model(ConvMixer(4, 1, 3, 4, classes=2), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_other_backends_are_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match="SavedModels can only be exported"):
        export_saved_model(model, tmp_path / "m")


def test_only_a_saved_model_is_replaced_and_only_on_request(tmp_path):
    model, path = build(NOT_SQUARE), tmp_path / "m"
    path.mkdir()
    export_saved_model(model, path)  # An empty folder may be replaced.
    with pytest.raises(FileExistsError, match="pass `--overwrite`"):
        export_saved_model(model, path)
    export_saved_model(build(NOT_SQUARE, 3), path, overwrite=True)
    outputs = run(path, "serve_uint8", images=IMAGES[:, :, :20])
    assert outputs["predictions"].shape == (5, 3)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=r"has no `saved_model.pb`"):
        export_saved_model(model, tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "1.jpg").read_bytes() == b"precious"


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    model, path = build(NOT_SQUARE), tmp_path / "m"
    export_saved_model(model, path)
    before = {x.name for x in path.iterdir()}

    def full(module, directory, signatures):
        (pathlib.Path(directory) / "half").write_text("written")
        raise tf.errors.ResourceExhaustedError(None, None, "No space left")

    monkeypatch.setattr(tf.saved_model, "save", full)
    with pytest.raises(OSError, match="Cannot write the SavedModel: No"):
        export_saved_model(model, path, overwrite=True)
    assert {x.name for x in path.iterdir()} == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.peer
def test_saved_model_cli_classifies_files(model, exported, tmp_path):
    encoded = files()[:3]
    np.save(tmp_path / "files.npy", np.array(encoded, object))
    # It ships with TensorFlow and runs a graph like TensorFlow Serving.
    tool = pathlib.Path(sys.executable).parent / "saved_model_cli"
    command = [tool, "run", "--dir", exported, "--tag_set", "serve"]
    command += ["--signature_def", "serve_encoded", "--outdir", tmp_path]
    command += ["--inputs", f"image_bytes={tmp_path / 'files.npy'}"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    expected = model(pixels_of(encoded)).numpy()
    outputs = np.load(tmp_path / "predictions.npy")
    assert relative_difference(outputs, expected) < 1e-5
    best = np.load(tmp_path / "top_labels.npy", allow_pickle=True)[:, 0]
    names = [NAMES[i] for i in expected.argmax(1)]
    assert [name.decode() for name in best] == names


C_API = """
import ctypes, json, sys
import numpy as np

library, folder, image, output, shape, classes, source, target = sys.argv[1:]
tf = ctypes.CDLL(library)
P = ctypes.c_void_p
class Place(ctypes.Structure):
    _fields_ = [("operation", P), ("index", ctypes.c_int)]
for name in ("NewStatus", "NewGraph", "NewSessionOptions",
             "LoadSessionFromSavedModel", "GraphOperationByName",
             "AllocateTensor", "TensorData"):
    getattr(tf, "TF_" + name).restype = P
tf.TF_Message.restype = ctypes.c_char_p
status, graph = P(tf.TF_NewStatus()), P(tf.TF_NewGraph())
def check():
    assert tf.TF_GetCode(status) == 0, tf.TF_Message(status)
tags = (ctypes.c_char_p * 1)(b"serve")
session = P(tf.TF_LoadSessionFromSavedModel(
    P(tf.TF_NewSessionOptions()), None, folder.encode(), tags, 1, graph, None,
    status))
check()
def place(name):
    name, index = name.split(":")
    operation = P(tf.TF_GraphOperationByName(graph, name.encode()))
    assert operation, name
    return Place(operation, int(index))
pixels = np.fromfile(image, np.uint8)
sides = json.loads(shape)
tensor = P(tf.TF_AllocateTensor(
    4, (ctypes.c_int64 * len(sides))(*sides), len(sides),
    ctypes.c_size_t(pixels.size)))
ctypes.memmove(tf.TF_TensorData(tensor), pixels.ctypes.data, pixels.size)
result = (P * 1)()
tf.TF_SessionRun(
    session, None, (Place * 1)(place(source)), (P * 1)(tensor), 1,
    (Place * 1)(place(target)), result, 1, None, 0, None, status)
check()
values = (ctypes.c_float * (sides[0] * int(classes))).from_address(
    tf.TF_TensorData(P(result[0])))
np.array(values, np.float32).tofile(output)
assert "tensorflow" not in sys.modules
"""


@pytest.mark.peer
def test_the_c_library_runs_it_without_python(model, exported, tmp_path):
    """TensorFlow's C interface, which servers in other languages use."""
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((exported / "saved_model.pb").read_bytes())
    signature = proto.meta_graphs[0].signature_def["serve_uint8"]
    IMAGES.tofile(tmp_path / "in")
    library = os.path.join(tf.sysconfig.get_lib(), "libtensorflow_cc.so.2")
    run_python(
        C_API,
        *(library, exported, tmp_path / "in", tmp_path / "out"),
        *(json.dumps(IMAGES.shape), 5, signature.inputs["images"].name),
        signature.outputs["predictions"].name,
    )
    outputs = np.fromfile(tmp_path / "out", "float32").reshape(-1, 5)
    assert relative_difference(outputs, model(IMAGES)) < 1e-5
