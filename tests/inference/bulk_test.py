"""Tests bulk prediction in this process, without Ray."""

import contextlib
import json
import shutil

import keras
import numpy as np
import pytest

pq = pytest.importorskip("pyarrow.parquet")

from convmixer_tf.data import decode_image  # noqa: E402
from convmixer_tf.data import resize_and_center_crop  # noqa: E402
from convmixer_tf.inference import bulk  # noqa: E402
from convmixer_tf.inference import map_images  # noqa: E402
from convmixer_tf.inference import predict_images  # noqa: E402
from convmixer_tf.inference.bulk_worker import Settings  # noqa: E402
from convmixer_tf.inference.bulk_worker import Worker  # noqa: E402
from convmixer_tf.models import ConvMixer  # noqa: E402
from convmixer_tf.models import save_model  # noqa: E402
from tests.helpers import files_up_to  # noqa: E402
from tests.helpers import oriented  # noqa: E402
from tests.helpers import randomize  # noqa: E402

WORKERS = {}  # Each opens its model once.


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    """Workers are called here, in parts of two images."""

    def answers(todo, arguments, workers, gpus):
        model, output, settings, _ = arguments
        if (model, settings) not in WORKERS:
            WORKERS[model, settings] = Worker(*arguments)
        worker = WORKERS[model, settings]
        worker._output = output
        yield from map(worker, todo)

    monkeypatch.setattr(bulk, "_import_ray", lambda: None)
    monkeypatch.setattr(bulk, "_cluster", lambda *_: contextlib.nullcontext(1))
    monkeypatch.setattr(bulk, "_answers", answers)
    monkeypatch.setattr(bulk, "_part_size", lambda total: 2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Five images, of which one is broken."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(1, 5):
        path = folder / f"{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(oriented(number))
    (folder / "1" / "broken.jpg").write_bytes(oriented(1)[:100])
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.keras"
    model = randomize(ConvMixer(8, 1, 3, 4, input_shape=(8, 8, 3), classes=3))
    save_model(model, path, ("ant", "bee", "élan"), 0.9)
    return path


@pytest.fixture(scope="module")
def output(photos, model, tmp_path_factory):
    """The output of a first run, to copy."""
    folder = tmp_path_factory.mktemp("first") / "output"
    with pytest.MonkeyPatch.context() as patch:
        _here.__wrapped__(patch)
        report = map_images(photos, folder, model)
    assert report == bulk.MapReport(5, 5, 1)
    return folder


def read(folder):
    return pq.read_table(folder).to_pylist()


def test_the_numbers_are_those_of_predict(photos, model, output):
    paths = sorted(map(str, photos.rglob("*.jpg")))
    rows = read(output)
    for row, expected in zip(rows, predict_images(paths, model), strict=True):
        assert row["path"] == expected.image
        assert row["error"] == expected.error
        best = expected.best(5, ("ant", "bee", "élan"))
        assert row["classes"] == ([x[0] for x in best] or None)
        if best:
            np.testing.assert_allclose(
                row["probabilities"], [x[2] for x in best], rtol=1e-5
            )
    assert [row["error"] is None for row in rows].count(False) == 1


@pytest.mark.slow
def test_features(photos, model, tmp_path):
    path = photos / "0" / "2.jpg"
    (tmp_path / "list.txt").write_text(f"{path}\nnone.jpg\n")
    source = tmp_path / "list.txt"
    map_images(source, tmp_path / "out", model, features="float16")
    table = pq.read_table(tmp_path / "out")
    assert str(table.schema.field("features").type.value_type) == "halffloat"
    found = keras.saving.load_model(model)
    body = keras.Model(found.inputs, found.get_layer("avg_pool").output)
    image = resize_and_center_crop(decode_image(path.read_bytes()), 8, 0.9)
    row, missing = table.to_pylist()
    assert missing["features"] is None
    assert missing["error"] == "unreadable: the file does not exist."
    expected = np.float16(body(image[None])[0])
    np.testing.assert_allclose(row["features"], expected, rtol=2e-3)


def test_a_rerun_does_what_is_missing(photos, model, output, tmp_path):
    copy = shutil.copytree(output, tmp_path / "out")
    expected = read(copy)
    (copy / "part-000001.parquet").unlink()
    (copy / ".0a.part-000002.parquet").write_bytes(b"of a killed worker")
    assert map_images(photos, copy, model) == bulk.MapReport(5, 2, 1)
    assert read(copy) == expected
    assert map_images(photos, copy, model) == bulk.MapReport(5, 0, 1)
    assert len(list(copy.iterdir())) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "256_8"}, "of another model. Write elsewhere"),
        ({"top": 2}, "of another top"),
        ({"features": "float32"}, "of another features"),
    ],
)
def test_results_of_others_are_left_alone(
    change, message, photos, model, output, tmp_path
):
    copy = shutil.copytree(output, tmp_path / "out")
    (copy / "part-000001.parquet").unlink()
    with pytest.raises(ValueError, match=message):
        map_images(photos, copy, **{"model": model, **change})
    assert len(list(copy.iterdir())) == 3


def test_another_source_is_an_error(photos, model, output):
    message = "another source and images.*`images` there: 5, now: 2$"
    with pytest.raises(ValueError, match=message):
        map_images(photos / "0", output, model)


def test_a_full_disk(photos, model, output, tmp_path):
    copy = shutil.copytree(output, tmp_path / "out")
    expected = read(copy)
    (copy / "part-000002.parquet").unlink()
    with files_up_to(100), pytest.raises(OSError, match="make room"):
        map_images(photos, copy, model)
    assert len(list(copy.iterdir())) == 3
    map_images(photos, copy, model)
    assert read(copy) == expected


def test_a_model_that_cannot_be_read_leaves_nothing(photos, tmp_path):
    (tmp_path / "bad.keras").write_text("no model")
    with pytest.raises(ValueError, match="Cannot read a model"):
        map_images(photos, tmp_path / "out", tmp_path / "bad.keras")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_of_something_else_is_refused(photos, model, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="has no `_manifest"):
        map_images(photos, tmp_path, model)
    with pytest.raises(FileExistsError, match="Name a folder"):
        map_images(photos, tmp_path / "letter.txt", model)


def test_an_interrupted_run_tells_what_is_written(
    photos, model, output, tmp_path, monkeypatch, caplog
):
    copy = shutil.copytree(output, tmp_path / "out")
    (copy / "part-000001.parquet").unlink()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bulk, "_compute", interrupt)
    with pytest.raises(KeyboardInterrupt):
        map_images(photos, copy, model)
    assert "3 of 5 images are written" in caplog.text


def test_a_bucket(photos, model, output, tmp_path):
    """A `file://` URL is handled like other URLs."""
    url = (tmp_path / "out").as_uri()
    map_images(photos.as_uri(), url, model)
    for row, expected in zip(read(tmp_path / "out"), read(output), strict=True):
        assert row.pop("path") == f"file://{expected.pop('path')}"
        same = {"error": expected["error"]} if expected["error"] else {}
        assert {**row, **same} == expected


def test_features_beyond_float16_are_an_error():
    worker = Worker.__new__(Worker)
    worker._settings = Settings("float16", 5, 2, None, None, None)
    pixels = np.zeros((2, 1, 1, 3), np.float32)
    images, is_read = [("a", b""), ("b", b"")], np.array([True, True])
    worker._decoded = lambda part: [(images, pixels, is_read)]
    worker._model = type("Model", (), {})
    worker._model.predict = lambda x: np.float32([[1, 2], [1, 1e6]])
    fine, large = worker._predict(None)
    assert fine.error is None
    assert "float32" in large.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "`workers` must be a positive integer"),
        ({"features": "int8"}, "`features` must be one of float16, float32"),
        ({"orientation": "up"}, "`orientation` must be one of"),
    ],
)
def test_wrong_arguments(arguments, message, photos, tmp_path):
    with pytest.raises(ValueError, match=message):
        map_images(photos, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_the_manifest_says_what_the_results_are_of(output):
    manifest = json.loads((output / "_manifest.json").read_text())
    assert manifest["images"] == 5
    assert manifest["batch_size"] == 64
