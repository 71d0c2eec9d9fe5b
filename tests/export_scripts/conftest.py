"""Images, and a model that predicts all three classes."""

import pytest

from convmixer_tf.data import open_dataset
from convmixer_tf.data import read_images
from convmixer_tf.models import ConvMixer
from convmixer_tf.models import save_model
from tests.helpers import randomize
from tests.helpers import tell_apart
from tests.helpers import write_images

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Has `images/test`, `calibration/train` and `model.keras`."""
    folder = tmp_path_factory.mktemp("export_scripts")
    write_images(folder / "images" / "test", CLASSES, 12, 32)
    write_images(folder / "calibration" / "train", CLASSES, 6, 48)
    dataset = open_dataset(str(folder / "images"), "test")
    images, labels = read_images(dataset, 16)
    shape = (16, 16, 3)
    model = randomize(
        ConvMixer(16, 1, 3, 4, input_shape=shape, classes=3, name="toy")
    )
    tell_apart(model, images, labels)
    save_model(model, folder / "model.keras", CLASSES)
    return folder


@pytest.fixture(scope="session")
def images(folder):
    """The flags of the images for the comparison."""
    return (f"--images={folder / 'images'}", "--split=test")


@pytest.fixture(scope="session")
def model(folder):
    """The flag of the model."""
    return f"--model={folder / 'model.keras'}"
