"""Tests the checks before the worker process starts."""

import json
import warnings

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
    """Pretends that the extra is installed; no process is started."""
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
        ({"method": "prune"}, "`method` must be one of .* method='prune'"),
        ({"learning_rate": 0}, "`learning_rate` must be a number between 0"),
        ({"learning_rate": "1"}, "between 0 and 1. Received: .*='1'"),
        ({"seed": -1}, "`seed` must be a non-negative integer"),
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


@pytest.mark.slow
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
    raw = convmixer(include_preprocessing=False)
    integers = convmixer()
    with warnings.catch_warnings(action="ignore"):  # About skipped layers.
        integers.quantize("int8")
    adapted = convmixer()
    adapted.get_layer("block_0").pointwise.enable_lora(2)
    large = {"config": config(batch_size=41), **INT8}
    for bad, images, numbers, arguments, message in (
        (free, IMAGES, labels, INT8, "static height and width"),
        (other, IMAGES, labels, INT8, "with the layers of a ConvMixer"),
        (features, IMAGES, labels, INT8, "must end in a classifier .*features"),
        (sigmoid, IMAGES, labels, INT8, "must end in a classifier .*sigmoid"),
        (custom, IMAGES, labels, INT8, "Keras must know the model's act"),
        (raw, IMAGES, labels, INT8, "include_preprocessing=True"),
        ("m.keras", IMAGES, labels, INT8, "must be a `keras.Model`.*m.keras"),
        (
            deploy(model, "litert_int8"),
            IMAGES,
            labels,
            INT8,
            r"`model` must be a ConvMixer, or",
        ),
        (
            integers,
            IMAGES,
            labels,
            INT8,
            "must not be quantized.*pred",
        ),
        (adapted, IMAGES, labels, INT8, "have LoRA.*block_0/pointwise"),
        (model, IMAGES, labels, large, "`batch_size` must be at most 40, the"),
        (model, IMAGES[:, :9], labels, INT8, r"`images` must be an array of"),
        (model, IMAGES[:0], labels[:0], INT8, "`images` must be an array of"),
        (model, IMAGES / 255, labels, INT8, "must hold pixels as uint8"),
        (model, IMAGES, labels[:9], INT8, r"`labels` must be .*shape \(9,\)"),
        (model, IMAGES, labels[:0], INT8, r"`labels` must be .*shape \(0,\)"),
        (model, IMAGES, labels + 1, INT8, "from 0 to 4, .* from 1 to 5"),
        (model, IMAGES, labels - 1, INT8, "from 0 to 4, .* from -1 to 3"),
        (model, IMAGES, labels / 1, INT8, "`labels` must be .*float64"),
        (model, IMAGES, labels, {}, "needs `calibration_images`"),
        (
            model,
            IMAGES,
            labels,
            {"calibration_images": IMAGES[:9]},
            "at least 10",
        ),
        (
            model,
            IMAGES,
            labels,
            {"quantization": "int4", "calibration_images": IMAGES[:, :9]},
            "needs `calibration_images`, an array",
        ),
        *(
            (
                model,
                IMAGES,
                labels,
                {"quantization": wrong},
                rf"one of \('int8', 'int4'\)\. .* quantization={wrong!r}",
            )
            for wrong in ("float16", "dynamic", "int7", None)
        ),
    ):
        with pytest.raises(ValueError, match=message):
            fine_tune(
                bad,
                tmp_path / "run",
                images,
                numbers,
                **{"config": config(), **arguments},
            )
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
    # The checkpoint interval does not matter.
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


@pytest.mark.slow
def test_a_deployed_model_is_exported_as_it_is(tmp_path):
    deployed = deploy(convmixer(), "litert")
    path = tmp_path / "model.tflite"
    export_tflite(deployed, path)
    assert path.stat().st_size
    with pytest.raises(ValueError, match="deployed for 'litert_dynamic' or"):
        export_tflite(
            deployed, tmp_path / "other.tflite", quantization="dynamic"
        )


@pytest.mark.usefixtures("installed")
def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(NotADirectoryError, match="Received: the file"):
        fine_tune(
            convmixer(), tmp_path / "run", IMAGES, LABELS, config(), **INT8
        )


@pytest.mark.usefixtures("installed")
def test_a_run_of_an_older_version_resumes(tmp_path):
    """Its settings have those of pruning and clustering."""
    arguments = (convmixer(), tmp_path, IMAGES, LABELS)
    for _ in range(2):
        with pytest.raises(AssertionError, match="A process was started"):
            fine_tune(*arguments, config(), **INT8)
        path = tmp_path / exchange.SETTINGS
        settings = json.loads(path.read_text())
        settings["config"] |= {"sparsity": 0.5, "clusters": 16}
        path.write_text(json.dumps(settings))
    settings["config"]["method"] = "prune"
    path.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="holds a run with another config"):
        fine_tune(*arguments, config(), **INT8)
