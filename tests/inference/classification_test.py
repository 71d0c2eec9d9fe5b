"""Which pixels a classifier gets."""

import numpy as np

from convmixer_tf.data import decode_image
from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.inference import Classifier
from convmixer_tf.inference import classify
from tests.helpers import oriented


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
