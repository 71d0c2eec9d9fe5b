"""What is checked before another process starts."""

import keras
import numpy as np
import pytest

from convmixer_tf.export import deploy
from convmixer_tf.export import export_tflite
from convmixer_tf.export.qat import TuningConfig
from convmixer_tf.export.qat import exchange
from convmixer_tf.export.qat import fine_tune
from convmixer_tf.export.qat import tuning
from convmixer_tf.export.qat.graph import describe
from convmixer_tf.models import ConvMixer
from tests.export.qat.samples import IMAGES
from tests.export.qat.samples import LABELS
from tests.export.qat.samples import config
from tests.export.qat.samples import convmixer

INT8 = {"calibration_images": IMAGES}


@pytest.fixture
def installed(monkeypatch):
    """Pretends the extra to be there; no other process is started."""
    monkeypatch.setattr(tuning, "check_installed", lambda: None)

    def refuse(folder):
        raise AssertionError("A process was started.")

    monkeypatch.setattr(tuning, "_run_worker", refuse)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "distil"}, "`method` must be one of .* method='distil'"),
        ({"epochs": 0}, "`epochs` must be a positive integer"),
        ({"batch_size": 1.5}, "`batch_size` must be a positive integer"),
        ({"save_every": 0}, "`save_every` must be a positive integer"),
        ({"log_every": 0}, "`log_every` must be a positive integer"),
        ({"learning_rate": 0}, r"`learning_rate` must be in \(0, 1\)"),
        ({"sparsity": 1.0}, r"`sparsity` must be in \(0, 1\)"),
        ({"clusters": 1}, "`clusters` must be an integer of at least 2"),
        ({"seed": -1}, "`seed` must be an integer of at least 0"),
        ({"threads": True}, "`threads` must be .* threads=True"),
    ],
)
def test_settings_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        TuningConfig(**arguments)


@pytest.mark.parametrize("missing", ["tensorflow_model_optimization", "both"])
def test_a_missing_extra(monkeypatch, tmp_path, missing):
    def find_spec(name):
        return None if missing in (name, "both") else name

    monkeypatch.setattr(tuning.importlib.util, "find_spec", find_spec)
    with pytest.raises(ImportError, match=r"pip install \"convmixer_tf\[qat\]"):
        fine_tune(convmixer(), tmp_path / "run", IMAGES, LABELS, **INT8)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("installed")
def test_errors_leave_no_folder(tmp_path):
    model, labels = convmixer(), LABELS
    free = ConvMixer(4, 1, 3, 4, input_shape=(None, None, 3))
    other = keras.Sequential(
        [
            keras.Input((20, 16, 3)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(5, "softmax"),
        ]
    )
    features = convmixer(include_top=False, pooling="avg")
    sigmoid = convmixer(classifier_activation="sigmoid")
    custom = convmixer(activation=keras.ops.erfinv)
    for bad, images, numbers, arguments, message in (
        (free, IMAGES, labels, INT8, "a static height and width"),
        (other, IMAGES, labels, INT8, r"must be what `ConvMixer\(...\)` retur"),
        (features, IMAGES, labels, INT8, "must end in a classifier .*features"),
        (sigmoid, IMAGES, labels, INT8, "must end in a classifier .*sigmoid"),
        (custom, IMAGES, labels, INT8, "one that Keras knows by name"),
        (model, IMAGES[:, :9], labels, INT8, r"`images` must be an array of"),
        (model, IMAGES[:0], labels[:0], INT8, "`images` must be an array of"),
        (model, IMAGES / 255, labels, INT8, "must be of pixels, uint8"),
        (model, IMAGES, labels[:9], INT8, r"`labels` must be .*shape \(9,\)"),
        (model, IMAGES, labels + 1, INT8, "below 5, .* up to 5"),
        (model, IMAGES, labels - 1, INT8, "`labels` must be an integer"),
        (model, IMAGES, labels / 1, INT8, "`labels` must be .*float64"),
        (model, IMAGES, labels, {}, "needs `calibration_images`"),
        (
            model,
            IMAGES,
            labels,
            {"quantization": "float16"},
            r"`quantization` must be one of \('int8', 'dynamic', 'int4'\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            fine_tune(bad, tmp_path / "run", images, numbers, **arguments)
        assert not (tmp_path / "run").exists(), message


@pytest.mark.usefixtures("installed")
def test_a_folder_of_another_run(tmp_path):
    model, folder = convmixer(), tmp_path / "run"
    settings = {"quantization": "int4"}
    with pytest.raises(AssertionError, match="A process was started"):
        fine_tune(model, folder, IMAGES, LABELS, config(), **settings)
    first = exchange.read_arrays(folder, exchange.INPUTS)
    for arguments, message in (
        ((IMAGES, LABELS, config(seed=1)), "with another config. Choose"),
        ((IMAGES[::-1], LABELS, config()), "with another data"),
    ):
        with pytest.raises(ValueError, match=message):
            fine_tune(model, folder, *arguments, **settings)
    with pytest.raises(ValueError, match="with another model"):
        fine_tune(
            convmixer("relu", dim=12),
            folder,
            IMAGES,
            LABELS,
            config(),
            **settings,
        )
    # How often it is saved does not matter.
    with pytest.raises(AssertionError, match="A process was started"):
        fine_tune(
            model, folder, IMAGES, LABELS, config(save_every=7), **settings
        )
    np.testing.assert_array_equal(
        exchange.read_arrays(folder, exchange.INPUTS)["images"], first["images"]
    )


def test_a_description_has_every_layer_after_what_feeds_it():
    deployed = deploy(convmixer(dim=16, kernel_size=9), "litert_int8")
    nodes = describe(deployed)
    assert {n["name"] for n in nodes} == {x.name for x in deployed.layers}
    seen = set()
    for node in nodes:
        assert seen >= set(node["inputs"])
        seen.add(node["name"])
    kinds = [node["kind"] for node in nodes]
    assert kinds[0] == "InputLayer"
    assert kinds[-1] == "Dense"
    assert nodes[0]["arguments"]["shape"] == (20, 16, 3)
    residual = next(n for n in nodes if n["name"] == "block_0_residual_group_2")
    assert residual["inputs"] == [
        "block_0_affine_group_2",
        "block_0_scale_group_2",
    ]


def test_weights_keep_their_order_in_files(tmp_path):
    weights = {"a": [np.arange(3), np.zeros((2, 2))], "b/c": [np.ones(1)]}
    exchange.write_arrays(tmp_path, "w.npz", exchange.flatten(weights))
    found = exchange.unflatten(exchange.read_arrays(tmp_path, "w.npz"))
    assert list(found) == ["a", "b/c"]
    np.testing.assert_array_equal(found["a"][0], np.arange(3))
    assert [len(arrays) for arrays in found.values()] == [2, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["w.npz"]


def test_a_fingerprint_tells_types_shapes_and_values():
    base = {"a": np.zeros(4, np.int32)}
    others = [
        {"a": np.zeros(4, np.float32)},
        {"a": np.zeros((2, 2), np.int32)},
        {"a": np.array([0, 0, 0, 1], np.int32)},
        {"b": np.zeros(4, np.int32)},
    ]
    found = {exchange.fingerprint(arrays) for arrays in (base, *others)}
    assert len(found) == 5
    assert exchange.fingerprint({"a": np.zeros(4, np.int32)}) in found


def test_a_deployed_model_is_exported_as_it_is(tmp_path):
    deployed = deploy(convmixer(), "litert")
    path = tmp_path / "model.tflite"
    export_tflite(deployed, path)
    assert path.stat().st_size
    with pytest.raises(ValueError, match="deployed for 'litert_dynamic', or"):
        export_tflite(
            deployed, tmp_path / "other.tflite", quantization="dynamic"
        )


@pytest.mark.parametrize("method", ["prune", "cluster"])
def test_sizes_are_compared_without_the_scales_of_dead_channels(
    monkeypatch, tmp_path, method
):
    """A kernel's 16 values would else all be those of one channel."""
    monkeypatch.setattr(tuning, "check_installed", lambda: None)
    monkeypatch.setattr(tuning, "_run_worker", lambda folder: None)
    monkeypatch.setattr(tuning, "_finish", lambda folder, deployed: deployed)
    model = convmixer()
    variance = model.get_layer("block_0").depthwise_norm.moving_variance
    variance.assign(variance.numpy() * np.where(np.arange(8) == 2, 1e-3, 1))

    def range_of_kernel(method):
        deployed = fine_tune(
            model,
            tmp_path / method,
            IMAGES,
            LABELS,
            config(method),
            quantization="float16",
        )
        export_tflite(
            deployed, tmp_path / f"{method}.tflite", quantization="float16"
        )
        kernel = next(
            layer.kernel.numpy()
            for layer in deployed.layers
            if getattr(layer, "kernel_size", None) == (1, 1)
            and layer.kernel.shape[2:] == (8, 8)
        )
        sizes = np.abs(kernel).max(axis=(0, 1, 3))
        return sizes.max() / np.median(sizes)

    assert range_of_kernel("float") > 15
    assert range_of_kernel(method) < 3
