import pathlib

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images


@pytest.fixture(scope="session")
def photos():
    """Two photographs, uint8 arrays of shape (427, 640, 3)."""
    return np.stack(load_sample_images().images)


@pytest.fixture(scope="session")
def small_photos(photos):
    """Non-square crops of them, uint8 array of shape (4, 90, 110, 3)."""
    return np.stack(
        [
            photos[index, top : top + 270 : 3, left : left + 330 : 3]
            for index in range(2)
            for top, left in ((20, 30), (120, 250))
        ]
    )


def save_images(folder, images):
    """Saves a dictionary from relative path to array or bytes."""
    for name, image in images.items():
        path = pathlib.Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            Image.fromarray(image).save(path)


@pytest.fixture
def save():
    return save_images


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory, photos):
    """A split of 40 images of 4 classes. All their crops are different."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    images = {}
    for index in range(40):
        top, left = random.integers(0, [300, 500])
        height, width = random.integers(40, 120, 2)
        crop = photos[index % 2, top : top + height, left : left + width]
        images[f"train/class {index % 4}/{index:02}.png"] = crop
    save_images(folder, images)
    return folder
