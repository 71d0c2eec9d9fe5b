"""Tests the pixels that a classifier gets."""

import numpy as np

import convmixer_tf
from convmixer_tf.data import decode_image
from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.inference.classification import classify
from convmixer_tf.inference.classifiers import Classifier
from convmixer_tf.models import ConvMixer
from convmixer_tf.models import save_model
from tests.helpers import oriented
from tests.helpers import randomize


def test_photographs_are_turned(tmp_path):
    photos = {tmp_path / f"{i}.jpg": oriented(i) for i in (1, 6)}
    seen = []

    def predict(images):
        seen.extend(images)
        return np.ones((len(images), 2))

    for path, content in photos.items():
        path.write_bytes(content)
    list(classify(Classifier(predict, 2, None, 16, 1.0), list(photos)))
    for pixels, content in zip(seen, photos.values(), strict=True):
        expected = resize_and_center_crop(decode_image(content), 16, 1.0)
        np.testing.assert_array_equal(pixels, expected)
    assert not np.array_equal(*seen)


def test_predict_images(tmp_path):
    model = randomize(ConvMixer(4, 1, 3, 4, input_shape=(8, 8, 3), classes=3))
    save_model(model, tmp_path / "m.keras", tuple("abc"), 1.0)
    (tmp_path / "image.jpg").write_bytes(oriented(1))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    paths = [tmp_path / "image.jpg", tmp_path / "broken.jpg"]
    seen, broken = convmixer_tf.predict_images(paths, tmp_path / "m.keras")
    image = resize_and_center_crop(decode_image(oriented(1)), 8, 1.0)
    expected = model(image[None]).numpy()[0]
    np.testing.assert_allclose(seen.probabilities, expected, rtol=1e-5)
    assert broken.probabilities is None
    assert "unreadable" in broken.error
