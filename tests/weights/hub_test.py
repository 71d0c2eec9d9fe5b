"""Tests downloads with the real huggingface_hub client and a local hub."""

import os
import pathlib
import subprocess
import sys
import time

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save

from convmixer_tf import weights as weights_lib
from convmixer_tf.weights import PUBLISHED_WEIGHTS
from convmixer_tf.weights import read_weights
from convmixer_tf.weights.hub import fetch_from_hub
from convmixer_tf.weights.hub import fetch_weights
from convmixer_tf.weights.published import PublishedWeights
from convmixer_tf.weights.published import find_published
from tests.weights.hub_server import point_client_at
from tests.weights.hub_server import running_hub
from tests.weights.samples import SMALL
from tests.weights.samples import assert_same
from tests.weights.samples import model_weights
from tests.weights.samples import random_state_dict
from tests.weights.samples import random_weights
from tests.weights.samples import small_model

REPOSITORY = "test/convmixer_small"
ARCHITECTURE = (
    SMALL.dim,
    SMALL.depth,
    SMALL.kernel_size,
    SMALL.patch_size,
    "gelu",
)
ENTRY = PublishedWeights("imagenet", REPOSITORY, *ARCHITECTURE, 0.0, 0.0)
OF_NEWER_CLIENT = pytest.mark.skipif(
    huggingface_hub.__version__ < "2", reason="the client before 2.0 differs"
)
CONTENT = save(random_state_dict(), metadata={"format": "pt"})


@pytest.fixture
def hub():
    with running_hub() as server:
        server.files[REPOSITORY, "model.safetensors"] = CONTENT
        yield server


@pytest.fixture(autouse=True)
def cache(hub, tmp_path, monkeypatch):
    """Points the client, in this process, at the hub and an empty cache."""
    cache = tmp_path / "cache"
    point_client_at(hub, cache, monkeypatch)
    monkeypatch.setitem(PUBLISHED_WEIGHTS, "convmixer_small", ENTRY)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    yield cache
    huggingface_hub.close_session()


def blobs(cache):
    return [path for path in cache.rglob("blobs/*") if path.is_file()]


def test_fetches_through_the_redirect(hub, cache):
    path = fetch_weights("convmixer_small")
    assert pathlib.Path(path).read_bytes() == CONTENT
    assert pathlib.Path(path).is_relative_to(cache)
    assert_same(read_weights(path), random_weights())
    assert hub.count("hub", "HEAD") == 1
    assert hub.count("cdn", "GET") == 1


def test_second_call_downloads_nothing(hub):
    first = fetch_weights("convmixer_small")
    assert fetch_weights("convmixer_small") == first
    assert hub.count("cdn", "GET") == 1
    assert hub.count("hub", "HEAD") == 2  # It checks for changes.


def test_offline_mode_uses_the_cache_and_asks_nobody(hub, monkeypatch):
    first = fetch_weights("convmixer_small")
    before = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_weights("convmixer_small") == first
    assert len(hub.requests) == before


def test_server_down_uses_the_cache(hub):
    first = fetch_weights("convmixer_small")
    hub.close()
    assert fetch_weights("convmixer_small") == first


def test_new_content_on_the_hub_is_fetched(hub):
    fetch_weights("convmixer_small")
    newer = save(random_state_dict(seed=1))
    hub.files[REPOSITORY, "model.safetensors"] = newer
    path = fetch_weights("convmixer_small")
    assert pathlib.Path(path).read_bytes() == newer


def test_offline_mode_without_cache(hub, cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = (
        "convmixer_small .*`model.safetensors` of the hub repository "
        "`test/convmixer_small`.*offline mode is on. Unset HF_HUB_OFFLINE"
        ".*pass its path as `weights`"
    )
    with pytest.raises(OSError, match=message):
        fetch_weights("convmixer_small")
    assert not hub.requests
    assert not blobs(cache)


def test_server_down_without_cache(hub, cache):
    url = hub.url
    hub.close()
    with pytest.raises(
        OSError, match=f"convmixer_small .*the hub at {url} cannot be reached"
    ):
        fetch_weights("convmixer_small")
    assert not blobs(cache)


def test_no_such_repository(hub):
    hub.files.clear()
    with pytest.raises(
        OSError,
        match=r"`test/convmixer_small`.*the file does not exist .*404",
    ):
        fetch_weights("convmixer_small")


def test_no_such_file(hub):
    hub.files[REPOSITORY, "other"] = hub.files.pop(
        (REPOSITORY, "model.safetensors")
    )
    with pytest.raises(
        OSError,
        match=r"`model.safetensors`.*the file does not exist .*404",
    ):
        fetch_weights("convmixer_small")


@OF_NEWER_CLIENT
def test_broken_connection_is_resumed(hub, cache):
    hub.cuts = [1000, 500]
    path = fetch_weights("convmixer_small")
    assert pathlib.Path(path).read_bytes() == CONTENT
    ranges = [
        headers.get("Range")
        for host, method, _, headers in hub.requests
        if (host, method) == ("cdn", "GET")
    ]
    assert ranges == [None, "bytes=1000-", "bytes=1500-"]
    assert len(blobs(cache)) == 1


@OF_NEWER_CLIENT
def test_connection_that_stays_broken_leaves_nothing(hub, cache):
    hub.cuts = [1000, 0, 0, 0, 0, 0] * 2  # The client tries six times.
    with pytest.raises(
        OSError, match=r"convmixer_small .*the download failed \(.*Try again"
    ):
        fetch_weights("convmixer_small")
    assert not blobs(cache)
    with pytest.raises(OSError, match="the download failed"):
        fetch_weights("convmixer_small")  # Not taken for whole the second time.
    assert not hub.cuts
    assert not blobs(cache)
    path = fetch_weights("convmixer_small")
    assert pathlib.Path(path).read_bytes() == CONTENT


@OF_NEWER_CLIENT
def test_download_shorter_than_announced_leaves_nothing(hub, cache):
    hub.cuts = [len(CONTENT) - 1]
    hub.announce_cuts = True
    with pytest.raises(
        OSError, match=r"the download failed \(OSError: Consistency check"
    ):
        fetch_weights("convmixer_small")
    assert not blobs(cache)
    path = fetch_weights("convmixer_small")
    assert pathlib.Path(path).read_bytes() == CONTENT


def test_corrupted_download_is_refused_until_deleted(hub, cache):
    hub.corrupt = True
    with pytest.raises(OSError, match=r"convmixer_small .*damaged") as info:
        fetch_weights("convmixer_small")
    (blob,) = blobs(cache)
    assert f"Delete `{blob}`" in str(info.value)
    hub.corrupt = False
    with pytest.raises(OSError, match="damaged"):
        fetch_weights("convmixer_small")
    blob.unlink()
    path = fetch_weights("convmixer_small")
    assert pathlib.Path(path).read_bytes() == CONTENT


@pytest.mark.parametrize("offset", [0, 100, -1])
def test_damage_in_the_cache_is_found_offline(offset, cache, monkeypatch):
    fetch_weights("convmixer_small")
    (blob,) = blobs(cache)
    content = bytearray(CONTENT)
    content[offset] ^= 1
    blob.write_bytes(content)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="damaged: the SHA-256"):
        fetch_weights("convmixer_small")


def test_cache_without_symbolic_links_is_used_unverified():
    path = pathlib.Path(fetch_weights("convmixer_small"))
    path.unlink()
    path.write_bytes(CONTENT)
    assert fetch_weights("convmixer_small") == str(path)


def test_content_not_named_by_sha256_is_used_unverified(tmp_path):
    path = pathlib.Path(fetch_weights("convmixer_small"))
    path.unlink()
    (tmp_path / "0123").write_bytes(CONTENT)
    path.symlink_to(tmp_path / "0123")
    assert fetch_weights("convmixer_small") == str(path)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "you may not read it .*401.* Check HF_ENDPOINT and HF_TOKEN"),
        (503, "cannot be reached"),
    ],
)
def test_hub_that_answers_with_an_error(hub, cache, status, message):
    hub.status = status
    with pytest.raises(OSError, match=f"convmixer_small .*{message}"):
        fetch_weights("convmixer_small")
    assert not blobs(cache)
    hub.status = None
    path = fetch_weights("convmixer_small")
    assert pathlib.Path(path).read_bytes() == CONTENT


def test_any_repository(hub):
    path = fetch_from_hub(f"hf://{REPOSITORY}")  # It has no model.keras.
    assert pathlib.Path(path).read_bytes() == CONTENT
    pinned = save(random_state_dict(seed=1))
    hub.files[f"{REPOSITORY}@v1", "model.safetensors"] = pinned
    hub.files[f"{REPOSITORY}@v1", "model.keras"] = b"no model"
    name = f"hf://{REPOSITORY}@v1"
    path = fetch_from_hub(f"{name}/model.safetensors")
    assert pathlib.Path(path).read_bytes() == pinned
    model = small_model(weights=name)
    assert_same(model_weights(model), random_weights(seed=1))
    assert fetch_from_hub(name).endswith("model.keras")


def test_any_repository_errors(hub):
    for name in ("hf://user", "hf://a/b@", "hf:/a/b", "hf://a/b c"):
        with pytest.raises(ValueError, match="must be hf://USER/REPOSITORY"):
            fetch_from_hub(name)
    with pytest.raises(FileNotFoundError, match=r"`test/convm.*status 404"):
        fetch_from_hub(f"hf://{REPOSITORY}/other.bin")
    with pytest.raises(OSError, match=r"`nobody/none`.* status 404"):
        small_model(weights="hf://nobody/none")
    hub.corrupt = True
    message = r"is damaged: the SHA-256 of the content is [0-9a-f]{64}"
    with pytest.raises(OSError, match=message):
        fetch_from_hub(f"hf://{REPOSITORY}")


def test_unwritable_cache(cache, monkeypatch):
    cache.write_text("a file where the cache should be")
    with pytest.raises(OSError, match="the download failed"):
        fetch_weights("convmixer_small")


@pytest.mark.parametrize(
    "architecture", [(768, 32, 9, 7, "relu"), (768, 32, 7, 7, "gelu")]
)
def test_unknown_architecture(hub, architecture):
    message = r"\(768, 32, 7, 7, 'relu'\).*Received: "
    with pytest.raises(ValueError, match=message) as error:
        find_published(*architecture)
    assert str(error.value).endswith(str(architecture))
    assert not hub.requests


def test_model_loads_what_it_fetches(hub):
    model = small_model(weights="imagenet", reset_classifier=True)
    expected = random_weights()
    for path, value in model_weights(model).items():
        same = np.array_equal(value, expected[path])
        assert same != path.startswith("predictions"), path


# The package without its __init__, because importing TensorFlow is slow.
SCRIPT = """
import sys
import types

package = sys.modules["convmixer_tf"] = types.ModuleType("convmixer_tf")
package.__path__ = [sys.argv[1]]
from convmixer_tf import weights
from convmixer_tf.weights.hub import fetch_from_hub
from convmixer_tf.weights.hub import fetch_weights
from convmixer_tf.weights.published import PublishedWeights

assert not {"huggingface_hub", "keras", "torch"} & set(sys.modules)
weights.PUBLISHED_WEIGHTS["convmixer_small"] = PublishedWeights(
    "imagenet", "test/convmixer_small", 6, 2, 3, 4, "gelu", 0.0, 0.0
)
path = fetch_weights("convmixer_small")
print(weights.read_weights(path)["patch_embed/conv/kernel"][0, 0, 0, 0])
"""


def run(**environment):
    """Downloads in a process that only has its environment variables."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HF_")
    }
    package = pathlib.Path(weights_lib.__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(package)],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_environment_variables_are_obeyed(hub, tmp_path):
    home = {"HF_HOME": str(tmp_path / "home")}
    kernel = random_weights()["patch_embed/conv/kernel"]

    online = run(HF_ENDPOINT=hub.url, HF_TOKEN="hf_secret", **home)
    assert online.returncode == 0, online.stderr
    assert float(online.stdout) == kernel[0, 0, 0, 0]
    assert len(blobs(tmp_path / "home")) == 1
    tokens = [
        (host, headers.get("authorization"))
        for host, _, path, headers in hub.requests
        if not path.startswith("/api/")
    ]
    assert tokens == [("hub", "Bearer hf_secret"), ("cdn", None)]

    before = len(hub.requests)
    offline = run(HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1", **home)
    assert offline.returncode == 0, offline.stderr
    assert offline.stdout == online.stdout
    assert len(hub.requests) == before


def test_environment_without_a_network(tmp_path):
    result = run(HF_HOME=str(tmp_path / "home"), HF_HUB_OFFLINE="1")
    assert result.returncode == 1
    assert "Error: Cannot fetch the published weights" in result.stderr
    assert "Unset HF_HUB_OFFLINE" in result.stderr
    # The hub client's exception has no more information.
    assert result.stderr.count("Traceback") == 1
    assert len(result.stderr.splitlines()) < 16
