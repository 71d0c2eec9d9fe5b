"""Photographs of three classes, and a model of other classes."""

import pytest

from convmixer_tf.models import ConvMixer
from convmixer_tf.models import save_model
from tests.helpers import randomize
from tests.helpers import write_images

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder with a folder of photographs for each class."""
    folder = tmp_path_factory.mktemp("photos")
    write_images(folder, CLASSES, 20, 24)
    return folder


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """The file of the pretrained model."""
    path = tmp_path_factory.mktemp("start") / "toy.keras"
    model = randomize(
        ConvMixer(16, 1, 3, 4, input_shape=(16, 16, 3), classes=2, name="toy")
    )
    save_model(model, path, ("ant", "bee"), 1.0)
    return path
