"""Tests downloads with the real `keras.utils.get_file` and a local server."""

import contextlib
import hashlib
import http.server
import pathlib
import threading

import pytest

from convmixer_tf.models import ConvMixer
from convmixer_tf.models import variants
from convmixer_tf.weights import PUBLISHED_WEIGHTS
from convmixer_tf.weights.hub import fetch_weights
from convmixer_tf.weights.published import PublishedFile
from convmixer_tf.weights.published import PublishedWeights
from tests.helpers import relative_difference
from tests.weights.keras2_files_test import outputs  # noqa: F401
from tests.weights.keras2_files_test import unpack

NAME = "convmixer_small"
CONTENT = bytes(range(256)) * 400


class Storage(http.server.ThreadingHTTPServer):
    """A server of files, each behind a redirect.

    Attributes:
        files: Dictionary from names to content.
        requests: List of the requested paths.
        cut: Number of bytes that a download sends before the connection breaks,
            or `None` for all.
        announced: Whether a truncated download looks complete.
        status: Status of all answers, or `None`.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = {}
        self.requests = []
        self.cut = self.status = None
        self.announced = False

    def published(self, name):
        """Returns the `PublishedFile` of a file."""
        digest = hashlib.sha256(self.files[name]).hexdigest()
        return PublishedFile(f"{self.url}/{name}", digest)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        name = self.path.rpartition("/")[2]
        if self.server.status or name not in self.server.files:
            return self.send_error(self.server.status or 404)
        if not self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", f"{self.server.url}/moved/{name}")
            return self.end_headers()
        content = self.server.files[name]
        sent = content[: self.server.cut]
        self.send_response(200)
        length = len(sent if self.server.announced else content)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def running():
    server = Storage()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def storage(monkeypatch):
    with running() as server:
        server.files = {"top.h5": CONTENT, "no_top.h5": CONTENT[:999]}
        publish(server, monkeypatch)
        yield server


def publish(server, monkeypatch):
    entry = PublishedWeights(
        "imagenet",
        None,
        *(4, 2, 8, 7, "gelu", 74.38, None),
        classes=5,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        file=server.published("top.h5"),
        file_without_top=server.published("no_top.h5"),
    )
    monkeypatch.setitem(PUBLISHED_WEIGHTS, NAME, entry)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "keras" / "models"


def names(cache):
    return sorted(path.name for path in cache.iterdir())


def test_fetches_through_the_redirect(storage, cache, capsys):
    path = fetch_weights(NAME)
    assert pathlib.Path(path).read_bytes() == CONTENT
    assert path == str(cache / "convmixer_small_top.h5")
    assert names(cache) == ["convmixer_small_top.h5"]
    assert storage.requests == ["/top.h5", "/moved/top.h5"]
    written = capsys.readouterr()
    assert written.out == ""  # Stdout is for a command's output.
    assert storage.url in written.err


def test_cached_it_asks_nobody(storage):
    first = fetch_weights(NAME)
    storage.requests.clear()
    assert fetch_weights(NAME) == first
    assert not storage.requests


def test_without_top_it_fetches_the_smaller_file(storage, cache):
    path = fetch_weights(NAME, include_top=False)
    assert pathlib.Path(path).read_bytes() == CONTENT[:999]
    assert names(cache) == ["convmixer_small_no_top.h5"]


def test_without_top_the_whole_file_will_do(storage):
    whole = fetch_weights(NAME)
    storage.requests.clear()
    assert fetch_weights(NAME, include_top=False) == whole
    assert not storage.requests


@pytest.mark.parametrize("offset", [0, -1])
def test_damage_in_the_cache_is_mended(storage, cache, offset):
    path = pathlib.Path(fetch_weights(NAME))
    damaged = bytearray(CONTENT)
    damaged[offset] ^= 1
    path.write_bytes(damaged)
    assert fetch_weights(NAME) == str(path)
    assert path.read_bytes() == CONTENT
    assert names(cache) == [path.name]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"cut": 1000}, "retrieval incomplete: got only 1000 out of 102400"),
        ({"cut": 0}, "retrieval incomplete: got only 0 out of 102400"),
        ({"cut": 1000, "announced": True}, "Incomplete or corrupted file"),
        ({"files": {"top.h5": CONTENT[::-1]}}, "Incomplete or corrupted file"),
        ({"files": {}}, "404 -- Not Found"),
        ({"status": 403}, "403 -- Forbidden"),
        ({"status": 503}, "503 -- Service Unavailable"),
    ],
)
def test_fault_leaves_nothing(storage, cache, fault, message, monkeypatch):
    with monkeypatch.context() as patch:
        for name, value in fault.items():
            patch.setattr(storage, name, value)
        with pytest.raises(OSError, match=message) as info:
            fetch_weights(NAME)
        text = str(info.value)
        assert f"weights of {NAME} from {storage.url}/top.h5: the do" in text
        assert "Nothing was kept." in text
        assert "pass its path as `weights`" in text
        assert names(cache) == []
    assert pathlib.Path(fetch_weights(NAME)).read_bytes() == CONTENT


def test_offline(storage, cache, monkeypatch):
    monkeypatch.setattr(storage, "status", 503)
    closed = PublishedFile("http://127.0.0.1:1/top.h5", "0" * 64)
    entry = PublishedWeights(
        "imagenet", None, 4, 2, 8, 7, "gelu", None, None, file=closed
    )
    monkeypatch.setitem(PUBLISHED_WEIGHTS, NAME, entry)
    message = (
        "from http://127.0.0.1:1/top.h5: .*Connection refused.*HTTPS_PROXY"
    )
    with pytest.raises(OSError, match=message):
        fetch_weights(NAME)
    assert names(cache) == []


def test_offline_with_a_damaged_cache_keeps_it(storage, cache):
    path = pathlib.Path(fetch_weights(NAME))
    path.write_bytes(CONTENT[:-1])
    storage.status = 503
    with pytest.raises(OSError, match="503"):
        fetch_weights(NAME)
    assert names(cache) == [path.name]


def test_cache_that_cannot_be_written(storage, cache):
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"`.*models` can be written .KERAS_HOME"):
        fetch_weights(NAME)
    assert not storage.requests


def test_interrupted_it_leaves_nothing(storage, cache, monkeypatch):
    def interrupt(*arguments):
        pathlib.Path(arguments[1]).write_bytes(b"a part")
        raise KeyboardInterrupt

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch_weights(NAME)
    assert names(cache) == []


@pytest.mark.parametrize(
    ("arguments", "fetched"),
    [
        ({}, "top.h5"),
        ({"include_top": False}, "no_top.h5"),
        ({"classes": 3, "reset_classifier": True}, "no_top.h5"),
    ],
)
def test_model_loads_what_it_fetches(
    storage,
    tmp_path,
    monkeypatch,
    outputs,  # noqa: F811
    arguments,
    fetched,
):
    for name in ("top", "no_top"):
        storage.files[f"{name}.h5"] = unpack(name, tmp_path).read_bytes()
    publish(storage, monkeypatch)
    model = ConvMixer(
        *(4, 2, 8, 7),
        weights="imagenet",
        input_shape=(None, None, 3),
        **{"classes": 5, "classifier_activation": None, **arguments},
    )
    assert storage.requests == [f"/{fetched}", f"/moved/{fetched}"]
    if not arguments:
        # Its default mean and deviation are 0 and 1.
        logits = model.predict(outputs["images"], verbose=0)
        assert relative_difference(logits, outputs["logits"]) < 1e-5


def test_the_variant_fetches_from_googles_storage(monkeypatch):
    asked = []

    def get_file(name, origin, file_hash, cache_subdir):
        asked.append((origin, file_hash))
        raise ConnectionError("no network")

    monkeypatch.setattr("keras.utils.get_file", get_file)
    base = "https://storage.googleapis.com/keras-cv/models/convmixer_512_16/"
    for include_top in (True, False):
        with pytest.raises(OSError, match=f"{base}.*no network"):
            variants.ConvMixer512_16(include_top=include_top)
    assert [origin.removeprefix(base) for origin, _ in asked] == [
        "imagenet/classification-v0.h5",
        "imagenet/classification-v0-notop.h5",
    ]
    assert [digest[:8] for _, digest in asked] == ["861f3080", "aa08c7fa"]
