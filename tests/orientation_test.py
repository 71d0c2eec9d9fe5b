"""Tests that all parts of the package read the same pixels from a file.

The images are stored in the eight EXIF orientations, as JPEG, PNG and WebP.
"""

import io
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from PIL import ImageOps

from convmixer_tf import data
from convmixer_tf.export import export_saved_model
from convmixer_tf.inference.classification import classify
from convmixer_tf.inference.classifiers import Classifier
from convmixer_tf.models import save_model
from convmixer_tf.models.additions import read_orientation
from convmixer_tf.training import TrainConfig
from convmixer_tf.training.classifier import evaluation_inputs
from convmixer_tf.training.classifier import training_inputs
from tests.helpers import asymmetric_image
from tests.helpers import exif
from tests.helpers import run_script

SIZE = 16
KINDS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
CLASSES = ("bottom", "top")


def encode(upright, orientation, kind):
    """Stores an upright image rotated, with an EXIF orientation."""
    # The pixels 0, 1, ... of the upright image, for each orientation.
    numbers = np.arange(upright.shape[0] * upright.shape[1])
    stored = numbers.reshape(upright.shape[:2])
    turned = np.asarray(_transpose(stored, orientation))
    pixels = np.zeros_like(upright).reshape(-1, 3)
    pixels[turned.ravel()] = upright.reshape(-1, 3)
    file = io.BytesIO()
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    if kind == "WEBP":
        options = {"lossless": True}
    Image.fromarray(pixels.reshape(upright.shape)).save(
        file, kind, exif=exif((0x0112, 3, 1, orientation)), **options
    )
    return file.getvalue()


def _transpose(numbers, orientation):
    image = Image.fromarray(np.int32(numbers), mode="I")
    image.getexif()[0x0112] = orientation
    return ImageOps.exif_transpose(image)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder test/CLASS/N.SUFFIX. The class is the brighter end."""
    folder = tmp_path_factory.mktemp("photos")
    for label, name in enumerate(CLASSES):
        (folder / "test" / name).mkdir(parents=True)
        image = asymmetric_image(SIZE, SIZE, batch=1)[0] // 4
        half = image[: SIZE // 2] if label else image[SIZE // 2 :]
        half += 150
        for suffix, kind in KINDS.items():
            for orientation in range(1, 9):
                path = folder / "test" / name / f"{orientation}.{suffix}"
                path.write_bytes(encode(image, orientation, kind))
    return folder


def expected_pixels(dataset, orientation):
    pixels = []
    for name in dataset.names.numpy():
        with Image.open(name.decode()) as image:
            if orientation == "exif":
                image = ImageOps.exif_transpose(image)
            pixels.append(np.asarray(image.convert("RGB")))
    return np.stack(pixels)


@pytest.mark.slow
@pytest.mark.parametrize("orientation", ["exif", "stored"])
def test_the_same_pixels_everywhere(photos, tmp_path, orientation):
    dataset = data.open_dataset(photos, "test")
    expected = expected_pixels(dataset, orientation)
    count = len(expected)
    found = {}

    # Training and evaluation, as `train_classifier` reads them.
    config = TrainConfig(epochs=1, steps_per_epoch=1, batch_size=count)
    context = tf.distribute.InputContext()
    load = training_inputs(
        config, dataset, data.get_augmentation("none"), SIZE, orientation
    )
    images, _ = next(iter(load(0, 0, context)))
    order = np.random.default_rng([0, 0]).permutation(count)
    found["train"] = np.zeros_like(expected)
    found["train"][order] = images
    load = evaluation_inputs(dataset, SIZE, count, 1.0, orientation)
    found["evaluate"] = next(iter(load(context)))[0]

    # Calibration and verification.
    found["samples"], _ = data.read_images(
        dataset, SIZE, crop_fraction=1.0, orientation=orientation
    )

    # Prediction.
    seen = []

    def predict(images):
        seen.append(images)
        return np.ones((len(images), 2)) / 2

    classifier = Classifier(predict, 2, None, SIZE, 1.0, orientation)
    paths = [name.decode() for name in dataset.names.numpy()]
    list(classify(classifier, paths))
    found["predict"] = np.concatenate(seen)

    # A SavedModel, which doesn't know this package.
    pixels = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(pixels, keras.layers.Flatten()(pixels))
    export_saved_model(
        model, tmp_path / "saved", crop_fraction=1.0, orientation=orientation
    )
    assert read_orientation(tmp_path / "saved") == orientation
    serve = tf.saved_model.load(tmp_path / "saved").signatures["serve_encoded"]
    features = serve(image_bytes=dataset.contents)["features"].numpy()
    found["serve_encoded"] = features.reshape(expected.shape)

    for name, images in found.items():
        np.testing.assert_array_equal(images, expected, err_msg=name)


@pytest.fixture(scope="module")
def model():
    """Returns whether an image is brighter at the bottom or at the top."""
    weights = np.ones((SIZE, SIZE, 3), "float32")
    weights[: SIZE // 2] = -1
    dense = keras.layers.Dense(2, activation="softmax")
    model = keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), keras.layers.Flatten(), dense]
    )
    kernel = np.stack([weights.ravel(), -weights.ravel()], axis=1) / 1e4
    dense.set_weights([kernel, np.zeros(2, "float32")])
    return model


@pytest.mark.large
@pytest.mark.parametrize("orientation", ["exif", "stored"])
def test_scripts_follow_the_model(photos, model, tmp_path, orientation):
    path = tmp_path / "model.keras"
    save_model(model, path, CLASSES, 1.0, orientation)
    result = run_script(
        "recipes/evaluate.py",
        f"--model={path}",
        f"--data={photos}",
        "--split=test",
        f"--output={tmp_path}",
    )
    assert result.returncode == 0, result.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["orientation"] == orientation
    # Without rotation, images with several of the eight orientations are not
    # upright.
    assert (scores["top1"] == 1) == (orientation == "exif")
    result = run_script(
        "convmixer_tf/predict.py",
        *("--model", path, "--format", "json", "--top", "1", photos),
    )
    assert result.returncode == 0, result.stderr
    right = [
        entry["predictions"][0]["class"] in entry["image"]
        for entry in json.loads(result.stdout)
    ]
    assert np.mean(right) == scores["top1"]
    result = run_script(
        "export/to_saved_model.py",
        f"--model={path}",
        f"--output={tmp_path / 'saved'}",
        f"--images={photos}",
        "--split=test",
    )
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "saved.json").read_text())
    assert report["accuracy"]["model"] == scores["top1"]
