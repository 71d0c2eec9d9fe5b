"""Tests TF Hub modules in all loaders."""

import functools
import http.server
import importlib.util
import re
import subprocess
import tarfile
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.export import HubCard
from convmixer_tf.export import HubLayer
from convmixer_tf.export import export_saved_model
from convmixer_tf.export import export_tfhub
from convmixer_tf.models import ConvMixer
from tests.export.saved_model_test import functions_of
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import relative_difference
from tests.helpers import run_python

IMAGES = asymmetric_image(24, 20, batch=24).astype("float32")
LABELS = np.arange(24) % 3
NAMES = ("ant", "bee", "cat")
SIZES = {"classifier": 3, "feature_vector": 16}


def build(**arguments):
    arguments = {"input_shape": (24, 20, 3), "classes": 3, **arguments}
    return randomize(ConvMixer(16, 2, 3, 4, **arguments))


@pytest.fixture(scope="module")
def model():
    return build(dropout=0.1, drop_path=0.2, remat=True)


@pytest.fixture(scope="module")
def logits(model):
    copied = build(classifier_activation=None)
    copied.set_weights(model.get_weights())
    return copied(IMAGES).numpy()


@pytest.fixture(scope="module")
def features(model):
    return keras.Model(model.input, model.get_layer("avg_pool").output)(
        IMAGES
    ).numpy()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    for kind in SIZES:
        names = NAMES if kind == "classifier" else None
        export_tfhub(model, folder / kind, kind=kind, class_names=names)
    return folder


@pytest.mark.parametrize("kind", SIZES)
def test_it_is_a_reusable_saved_model(exported, kind, logits, features):
    module = tf.saved_model.load(exported / kind / "saved_model")
    expected = logits if kind == "classifier" else features
    for arguments in ({}, {"training": False}):
        outputs = module(IMAGES, **arguments)
        assert relative_difference(outputs, expected) < 1e-5
    run = module.signatures["serving_default"]
    name = "logits" if kind == "classifier" else kind
    outputs = run(images=tf.constant(IMAGES[:1]))[name]
    assert relative_difference(outputs, expected[:1]) < 1e-5
    # Stem and two blocks. Only classifier modules have a classifier.
    head = 2 if kind == "classifier" else 0
    assert len(module.trainable_variables) == 4 + 2 * 8 + head
    assert all(variable.trainable for variable in module.trainable_variables)
    known = {variable.ref() for variable in module.variables}
    assert {variable.ref() for variable in module.trainable_variables} < known
    assert list(module.regularization_losses) == []
    assert hasattr(module, "class_names") == (kind == "classifier")


@pytest.fixture(scope="module")
def certain(tmp_path_factory):
    """A module without randomness in training."""
    folder = tmp_path_factory.mktemp("certain") / "m"
    export_tfhub(build(), folder, kind="feature_vector")
    return folder


def load_with_model(folder):
    """The module and the exported model."""
    model = build()
    body = keras.Model(model.input, model.get_layer("avg_pool").output)
    return tf.saved_model.load(folder / "saved_model"), body


def test_training_uses_and_moves_the_batch_statistics(certain):
    module, body = load_with_model(certain)
    expected = body(IMAGES, training=True)
    assert relative_difference(module(IMAGES, training=True), expected) < 1e-4
    moved = {x.name: x.numpy() for x in module.variables if "moving" in x.name}
    assert len(moved) == 10
    expected = {f"{x.path}:0": x.numpy() for x in body.variables}
    for name, value in moved.items():
        assert relative_difference(value, expected[name]) < 1e-4
    after = module(IMAGES)
    assert relative_difference(after, body(IMAGES)) < 1e-4


@pytest.mark.slow
def test_its_gradients_are_those_of_the_model(certain):
    module, body = load_with_model(certain)

    def gradients(call, variables):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(call(IMAGES, training=True) ** 2)
        return tape.gradient(loss, variables)

    expected = gradients(body, [v.value for v in body.trainable_variables])
    actual = gradients(module, list(module.trainable_variables))
    names = [v.name for v in module.trainable_variables]
    assert names == [f"{v.path}:0" for v in body.trainable_variables]
    # A bias before batch normalization has almost no gradient.
    scale = max(np.abs(x).max() for x in expected)
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * scale)


def test_the_graph_trains_on_any_device(exported):
    """It must use only stock operations: no compiler, no fast CPU kernels."""
    for kind in SIZES:
        operations = set()
        for function in functions_of(exported / kind / "saved_model"):
            assert not [name for name in function.attr if "Xla" in name]
            operations |= {node.op for node in function.node_def}
        assert {"Conv2D", "DepthwiseConv2dNative"} <= operations
        wrong = ("PyFunc", "Backprop", "IdentityN", "While")
        assert not [x for x in operations if any(w in x for w in wrong)]


@pytest.mark.slow
def test_a_classifier_gives_logits(model, logits, tmp_path):
    other = build(classifier_activation="sigmoid")
    other.set_weights(model.get_weights())
    before = other(IMAGES).numpy()
    export_tfhub(other, tmp_path / "m")
    module = tf.saved_model.load(tmp_path / "m" / "saved_model")
    assert relative_difference(module(IMAGES), logits) < 1e-5
    np.testing.assert_array_equal(other(IMAGES), before)


@pytest.mark.slow
def test_activations_that_keras_does_not_know(tmp_path):
    def doubled(x):
        return 2 * keras.ops.tanh(x)

    model = build(activation=doubled, classifier_activation=None)
    export_tfhub(model, tmp_path / "m")
    module = tf.saved_model.load(tmp_path / "m" / "saved_model")
    assert relative_difference(module(IMAGES), model(IMAGES)) < 1e-5


@pytest.mark.slow
def test_what_is_frozen_here_can_be_trained_there(tmp_path):
    """Also for images of any size."""
    model = build(include_top=False, pooling="max", input_shape=(None, None, 3))
    model.trainable = False
    export_tfhub(model, tmp_path / "m", kind="feature_vector")
    module = tf.saved_model.load(tmp_path / "m" / "saved_model")
    assert len(module.trainable_variables) == 4 + 2 * 8
    assert not model.trainable_variables
    for images in (IMAGES, IMAGES[:, :9]):
        assert relative_difference(module(images), model(images)) < 1e-5


@pytest.mark.slow
def test_regularization_goes_with_it(model, tmp_path):
    body = build(include_top=False, pooling="avg")
    head = keras.layers.Dense(
        3, kernel_regularizer=keras.regularizers.L2(0.5), name="head"
    )
    whole = keras.Sequential([body, head])
    whole.build((None, 24, 20, 3))
    export_tfhub(whole, tmp_path / "m")
    module = tf.saved_model.load(tmp_path / "m" / "saved_model")
    (loss,) = module.regularization_losses
    expected = 0.5 * np.sum(head.kernel.numpy() ** 2)
    assert float(loss()) == pytest.approx(expected, rel=1e-5)
    layer = HubLayer(tmp_path / "m" / "saved_model")
    layer(IMAGES, training=True)
    assert [float(x) for x in layer.losses] == pytest.approx([expected])


def test_the_archive_has_the_saved_model_at_its_root(exported, tmp_path):
    folder = exported / "classifier"
    path = folder / "model.tar.gz"
    with tarfile.open(path) as archive:
        names = set(archive.getnames())
        assert {x.uname for x in archive.getmembers()} == {""}
    subprocess.run(["tar", "-xzf", path, "-C", tmp_path], check=True)
    assert {"saved_model.pb", "variables/variables.index"} <= names
    module = tf.saved_model.load(tmp_path)
    original = tf.saved_model.load(folder / "saved_model")
    np.testing.assert_array_equal(module(IMAGES), original(IMAGES))


def metadata(page):
    """Reads a page as TF Hub does: handle, description, then properties."""
    first, description, *lines = page.split("\n")
    assert re.match(r"# Module [\w-]+/[\w./-]+/\d+$", first)
    assert description
    properties = {}
    for line in lines:
        if line.startswith("#"):
            break
        if line:
            key, value = re.fullmatch(r"<!-- ([\w-]+): (.+) -->", line).groups()
            properties[key] = value
    return first, properties


@pytest.mark.slow
def test_the_page_is_in_tf_hubs_format(model, logits, exported, tmp_path):
    page = (exported / "feature_vector" / "README.md").read_text()
    first, properties = metadata(page)
    assert first == "# Module convmixer_tf/convmixer/feature_vector/1"
    assert properties == {
        "asset-path": "model.tar.gz",
        "task": "image-feature-vector",
        "network-architecture": "convmixer",
        "fine-tunable": "true",
        "format": "saved_model_2",
    }
    assert "**Pixels are in [0, 255]" in page
    assert "height 24,\nwidth 20" in page
    assert "{" not in page
    card = HubCard(
        "me/mine/2",
        dataset="cifar-10",
        license="mit",
        asset_path="https://example.com/m.tar.gz",
        notes="Top-1: none.",
    )
    export_tfhub(
        model, tmp_path / "m", class_names=NAMES, card=card, max_pixel=1
    )
    page = (tmp_path / "m" / "README.md").read_text()
    first, properties = metadata(page)
    assert first == "# Module me/mine/2"
    assert properties["asset-path"] == "https://example.com/m.tar.gz"
    assert properties["task"] == "image-classification"
    assert (properties["dataset"], properties["license"]) == ("cifar-10", "mit")
    assert "\nTop-1: none.\n" in page
    assert "module.class_names()" in page
    assert "**Pixels are in [0, 1]**" in page
    module = tf.saved_model.load(tmp_path / "m" / "saved_model")
    assert relative_difference(module(IMAGES / 255), logits) < 1e-5


def test_errors_leave_nothing(model, tmp_path):
    grid = build(include_top=False)
    other = keras.Sequential([keras.Input((24, 20, 3)), keras.layers.Flatten()])
    for bad, arguments, message in (
        (model, {"kind": "features"}, "`kind` must be one of"),
        (model, {"max_pixel": 2}, "`max_pixel` must be 255, or 1"),
        (grid, {}, 'has no classifier. Export it with `kind="fea'),
        (grid, {"kind": "feature_vector"}, "needs a model with a layer `avg_p"),
        (model, {"class_names": ["x"]}, "model's 3 classes. Received: 1"),
        ("model", {}, "Argument `model` must be a `keras.Model`"),
        (other, {}, "`model` must be or contain a ConvMixer"),
    ):
        with pytest.raises(ValueError, match=message):
            export_tfhub(bad, tmp_path / "m", **arguments)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        export_tfhub(model, tmp_path / "missing" / "m")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "notes.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="has no `saved_model/saved_mo"):
        export_tfhub(model, tmp_path / "m", overwrite=True)
    assert (tmp_path / "m" / "notes.txt").read_text() == "precious"


@pytest.mark.large
def test_replaced_on_request_only(model, tmp_path):
    export_tfhub(model, tmp_path / "m")
    with pytest.raises(FileExistsError, match="pass `--overwrite`"):
        export_tfhub(model, tmp_path / "m")
    export_tfhub(model, tmp_path / "m", kind="feature_vector", overwrite=True)
    module = tf.saved_model.load(tmp_path / "m" / "saved_model")
    assert module(IMAGES).shape == (24, 16)
    assert [x.name for x in tmp_path.iterdir()] == ["m"]


# For each loader: the outputs are the same, then training reduces the loss,
# changes all variables and updates the batch statistics.


def outer_model(layer):
    images = keras.Input((24, 20, 3))
    outputs = keras.layers.Dense(3)(layer(images))
    outer = keras.Model(images, outputs)
    outer.compile(
        keras.optimizers.AdamW(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return outer


@pytest.mark.slow
def test_our_layer_fine_tunes(exported, features, tmp_path):
    layer = HubLayer(exported / "feature_vector" / "saved_model")
    assert relative_difference(layer(IMAGES), features) < 1e-5
    outer = outer_model(layer)
    assert len(outer.trainable_weights) == 20 + 2
    before = [weight.numpy() for weight in layer.weights]
    history = outer.fit(IMAGES, LABELS, 8, epochs=20, verbose=0).history["loss"]
    assert history[-1] < 0.6 * history[0]
    for weight, old in zip(layer.weights, before, strict=True):
        assert not np.array_equal(weight.numpy(), old), weight.path
    trained = outer.predict(IMAGES, verbose=0)
    assert relative_difference(layer(IMAGES), features) > 1e-2
    outer.save(tmp_path / "outer.keras")
    again = keras.saving.load_model(tmp_path / "outer.keras")
    outputs = again.predict(IMAGES, verbose=0)
    assert relative_difference(outputs, trained) < 1e-6
    # Training continues from there, with the optimizer's state.
    history += again.fit(IMAGES, LABELS, 8, verbose=0).history["loss"]
    assert history[-1] < history[1]


def test_our_layer_frozen_changes_nothing(exported, features):
    layer = HubLayer(
        exported / "feature_vector" / "saved_model", trainable=False
    )
    outer = outer_model(layer)
    assert len(outer.trainable_weights) == 2
    history = outer.fit(IMAGES, LABELS, 8, epochs=2, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert relative_difference(layer(IMAGES), features) < 1e-5


@pytest.mark.large
def test_our_layer_in_a_half_precision_model(exported, features):
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = HubLayer(exported / "feature_vector" / "saved_model")
    assert relative_difference(layer(IMAGES), features) < 1e-5
    outer = outer_model(layer)
    losses = outer.fit(IMAGES, LABELS, 8, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_our_layer_says_what_it_cannot_load(model, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="There is no SavedModel at"):
        HubLayer(tmp_path)
    export_saved_model(model, tmp_path / "m")
    with pytest.raises(
        ValueError, match=r"no `__call__`.*TFSMLayer.*serve_uint8"
    ):
        HubLayer(tmp_path / "m")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow"):
        HubLayer(tmp_path)
    with pytest.raises(ValueError, match="TF Hub modules can only be"):
        export_tfhub(model, tmp_path / "x")


def test_tfsm_layer_computes_the_same(exported, features):
    layer = keras.layers.TFSMLayer(
        str(exported / "feature_vector" / "saved_model"),
        call_endpoint="serving_default",
    )
    outputs = layer(IMAGES)["feature_vector"]
    assert relative_difference(outputs, features) < 1e-5
    images = keras.Input((24, 20, 3))
    outer = keras.Model(images, layer(images)["feature_vector"])
    outputs = outer.predict(IMAGES, verbose=0)
    assert relative_difference(outputs, features) < 1e-5


# Fresh processes that can't import this package, except the last one.
START = (
    "import sys; sys.modules['convmixer_tf'] = None\n"
    "import numpy as np, tensorflow as tf\n"
    "handle, folder = sys.argv[1:]\n"
    "images = np.load(folder + '/in.npy'); labels = np.arange(24) % 3\n"
)
TRAIN = (
    "before = [x.numpy() for x in layer.weights]\n"
    "history = outer.fit(images, labels, 8, epochs=20, verbose=0).history\n"
    "pairs = zip(layer.weights, before)\n"
    "assert all(np.any(x.numpy() != y) for x, y in pairs)\n"
    "assert len(layer.trainable_weights) == 20, layer.trainable_weights\n"
    "assert sum('moving' in x.name for x in layer.weights) == 10\n"
    "losses = history['loss']; assert losses[-1] < .6 * losses[0], losses\n"
)
LOADERS = {
    "hub.load": (
        "import tensorflow_hub as hub\n"
        "module = hub.load(handle)\n"
        "np.save(folder + '/out.npy', module(images))\n"
        "before = [x.numpy() for x in module.variables]\n"
        "head = tf.Variable(np.random.default_rng(0).normal(\n"
        "    0, .1, (16, 3)).astype('float32'))\n"
        "trained = [head, *module.trainable_variables]; losses = []\n"
        "for step in range(15):\n"
        "    with tf.GradientTape() as tape:\n"
        "        x = module(images, training=True) @ head\n"
        "        loss = tf.reduce_mean(tf.keras.losses\n"
        "            .sparse_categorical_crossentropy(labels, x, True))\n"
        "    losses.append(float(loss))\n"
        "    for v, g in zip(trained, tape.gradient(loss, trained)):\n"
        "        v.assign_sub(.003 * tf.sign(g))\n"
        "assert losses[-1] < .9 * losses[0], losses\n"
        "pairs = zip(module.variables, before)\n"
        "assert all(np.any(x.numpy() != y) for x, y in pairs)\n"
    ),
    "hub.KerasLayer": (
        "import tensorflow_hub as hub, tf_keras\n"
        "layer = hub.KerasLayer(handle, trainable=True)\n"
        "np.save(folder + '/out.npy', layer(images))\n"
        "outer = tf_keras.Sequential([\n"
        "    tf_keras.layers.InputLayer((24, 20, 3)), layer,\n"
        "    tf_keras.layers.Dense(3)])\n"
        "outer.compile(tf_keras.optimizers.Adam(3e-3),\n"
        "    tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))\n"
        + TRAIN
    ),
    "keras.layers.TFSMLayer": (
        "import keras\n"
        "layer = keras.layers.TFSMLayer(\n"
        "    handle, call_endpoint='serving_default')\n"
        "np.save(folder + '/out.npy', layer(images)['feature_vector'])\n"
    ),
    "HubLayer": (
        "del sys.modules['convmixer_tf']\n"
        "import keras\n"
        "from convmixer_tf.export import HubLayer\n"
        "layer = HubLayer(handle)\n"
        "np.save(folder + '/out.npy', layer(images))\n"
        "outer = keras.Sequential([\n"
        "    keras.Input((24, 20, 3)), layer, keras.layers.Dense(3)])\n"
        "outer.compile(keras.optimizers.AdamW(3e-3),\n"
        "    keras.losses.SparseCategoricalCrossentropy(from_logits=True))\n"
        + TRAIN
    ),
}


def need_tensorflow_hub():
    """Skips if it is missing. It needs a setuptools with pkg_resources."""
    for name in ("pkg_resources", "tf_keras", "tensorflow_hub"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}")


@pytest.mark.peer
@pytest.mark.parametrize("loader", LOADERS)
def test_every_loader_in_a_process_of_its_own(
    loader, exported, features, tmp_path
):
    if loader.startswith("hub"):
        need_tensorflow_hub()
    np.save(tmp_path / "in.npy", IMAGES)
    folder = exported / "feature_vector" / "saved_model"
    run_python(START + LOADERS[loader], folder, tmp_path)
    outputs = np.load(tmp_path / "out.npy")
    assert relative_difference(outputs, features) < 1e-5


@pytest.fixture
def server(exported):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=exported)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.peer
@pytest.mark.parametrize("loader", ["hub.load", "hub.KerasLayer"])
def test_the_archive_over_http(loader, server, features, tmp_path):
    need_tensorflow_hub()
    np.save(tmp_path / "in.npy", IMAGES)
    run_python(
        START + LOADERS[loader],
        f"{server}/feature_vector/model.tar.gz",
        tmp_path,
        TFHUB_CACHE_DIR=str(tmp_path / "cache"),
    )
    outputs = np.load(tmp_path / "out.npy")
    assert relative_difference(outputs, features) < 1e-5
