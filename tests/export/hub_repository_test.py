"""Tests hub repositories, opened by Keras, timm and this package."""

import json
import os
import subprocess
import sys
import time

import huggingface_hub
import keras
import numpy as np
import pytest

from convmixer_tf import open_model
from convmixer_tf.export import push_to_hub
from convmixer_tf.export.hub_repository import write_repository
from convmixer_tf.inference.classifiers import load_classifier
from convmixer_tf.models import ConvMixer
from convmixer_tf.weights import PUBLISHED_WEIGHTS
from convmixer_tf.weights.hub import fetch_from_hub
from convmixer_tf.weights.published import PublishedWeights
from tests.helpers import ROOT
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.peers import import_timm
from tests.weights.hub_server import point_client_at
from tests.weights.hub_server import running_hub

IMAGES = np.float32(asymmetric_image(16, 16))
NAMES = ("red", "green", "blue")
REPOSITORY = "user/small"


def small(**arguments):
    arguments = {"input_shape": (16, 16, 3), "classes": 3, **arguments}
    return ConvMixer(8, 1, 3, 4, mean=0.25, std=0.5, **arguments)


def classifier(**arguments):
    return randomize(small(**arguments))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with running_hub() as server:
        point_client_at(server, tmp_path / "cache", monkeypatch)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        yield server
        huggingface_hub.close_session()


@pytest.mark.slow
def test_what_is_pushed_opens_to_the_bit(hub):
    model = classifier()
    commit = push_to_hub(
        model, REPOSITORY, class_names=NAMES, crop_fraction=0.9, license="MIT"
    )
    expected = model.predict(IMAGES, verbose=0)
    for name in (f"hf://{REPOSITORY}", f"hf://{REPOSITORY}@{commit}"):
        opened = open_model(name)
        assert opened.class_names == NAMES
        assert opened.crop_fraction == 0.9
        outputs = opened.model.predict(IMAGES, verbose=0)
        np.testing.assert_array_equal(outputs, expected)
    classifier_of_files = load_classifier(f"hf://{REPOSITORY}")
    assert classifier_of_files.class_names == NAMES
    assert classifier_of_files.crop_fraction == 0.9
    path = fetch_from_hub(f"hf://{REPOSITORY}/model.keras")
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(loaded.predict(IMAGES, verbose=0), expected)
    card = hub.files[REPOSITORY, "README.md"].decode()
    assert card.startswith("---\nlibrary_name: keras\n")
    assert "license: mit\n" in card
    assert f'open_model("hf://{REPOSITORY}")' in card
    assert "timm.create_model" not in card

    # Like a repository of timm.
    del hub.files[REPOSITORY, "model.keras"]
    opened = open_model(f"hf://{REPOSITORY}")
    assert (opened.class_names, opened.crop_fraction) == (NAMES, 0.9)
    outputs = opened.model.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(outputs, expected, atol=1e-6)
    del hub.files[REPOSITORY, "config.json"]
    with pytest.raises(ValueError, match="has no activation of its"):
        open_model(f"hf://{REPOSITORY}")


def test_errors(hub, tmp_path):
    with pytest.raises(ValueError, match="must be USER/REPOSITORY"):
        push_to_hub(classifier(), "small")
    with pytest.raises(ValueError, match="must be a classifier"):
        push_to_hub(classifier(include_top=False), REPOSITORY)
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="must be a ConvMixer"):
        write_repository(other, tmp_path, REPOSITORY)
    hub.status = 403
    with pytest.raises(OSError, match=r"`user/small`: .*you may not.* 403"):
        push_to_hub(classifier(), REPOSITORY)
    assert not hub.files
    assert not list(tmp_path.glob("*.keras"))


@pytest.mark.large
def test_the_command(hub, tmp_path):
    code = "import sys; from convmixer_tf.cli import main; sys.exit(main())"
    result = subprocess.run(
        [
            *(sys.executable, "-c", code, "push", "--model=256_8"),
            f"--repository={REPOSITORY}",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_ENDPOINT": hub.url, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    name = result.stdout.split()[-1]
    assert name.startswith(f"hf://{REPOSITORY}@")
    opened = open_model(name)
    assert opened.class_names[0] == "airplane"
    images = np.float32(asymmetric_image(32, 32))
    np.testing.assert_array_equal(
        opened.model(images), open_model("256_8").model(images)
    )


@pytest.mark.peer
def test_timm_opens_it(tmp_path, monkeypatch):
    import_timm()
    import timm
    import torch
    from timm.models import convmixer

    shape = {"dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 4}

    def convmixer_small(pretrained=False, **kwargs):
        return convmixer._create_convmixer(
            "convmixer_768_32", pretrained, **shape, **kwargs
        )

    timm.models.register_model(convmixer_small)
    entry = PublishedWeights(
        "imagenet",
        "timm/convmixer_small.in1k",
        **shape,
        activation="gelu",
        top1=None,
        top5=None,
    )
    monkeypatch.setitem(PUBLISHED_WEIGHTS, "convmixer_small", entry)
    model = classifier(classifier_activation=None)
    write_repository(model, tmp_path, REPOSITORY, class_names=NAMES)
    assert "timm.create_model" in (tmp_path / "README.md").read_text()
    opened = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    settings = timm.data.resolve_data_config({}, model=opened)
    assert tuple(settings["input_size"]) == (3, 16, 16)
    assert tuple(settings["mean"]) == (0.25,) * 3
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["label_names"] == list(NAMES)
    pixels = (IMAGES / 255 - 0.25) / 0.5
    with torch.inference_mode():
        outputs = opened(torch.tensor(pixels.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(outputs, model(IMAGES), atol=1e-5)
    # The weights have gone through timm unchanged.
    torch.save(opened.state_dict(), tmp_path / "timm.pth")
    again = small(weights=tmp_path / "timm.pth", classifier_activation=None)
    assert len(again.weights) == len(opened.state_dict()) - 3
    for actual, value in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(actual.numpy(), value.numpy())
