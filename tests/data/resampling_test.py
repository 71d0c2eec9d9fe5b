import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convmixer_tf.data.resampling import resample

FILTERS = {False: Image.Resampling.BILINEAR, True: Image.Resampling.BICUBIC}


def pillow_resize(image, width, height, cubic):
    # In two steps, since Pillow 13 starts with the rows of some images.
    columns = Image.fromarray(image).resize(
        (width, image.shape[0]), FILTERS[cubic]
    )
    return np.asarray(columns.resize((width, height), FILTERS[cubic]), int)


@pytest.mark.parametrize("cubic", [False, True])
@pytest.mark.parametrize("size", [1, 32, 97, 224])
@pytest.mark.parametrize(
    "part",
    [np.s_[:, :], np.s_[:400, :90], np.s_[:23, :211], np.s_[:1, :1]],
    ids=["640x427", "90x400", "211x23", "1x1"],
)
def test_equals_pillow(photos, part, size, cubic):
    image = photos[0][part]
    ours = resample(image, [size, size], [0, 0], size, cubic).numpy()
    error = np.abs(ours - pillow_resize(image, size, size, cubic))
    # Pillow uses fixed-point numbers and rounds some halves differently.
    assert error.max() <= 1
    assert error.mean() < 0.01


def test_returns_a_window_of_the_whole(photos):
    window = resample(photos[0], [150, 200], [31, 47], 64, True).numpy()
    whole = pillow_resize(photos[0], 200, 150, True)
    error = np.abs(window - whole[31 : 31 + 64, 47 : 47 + 64])
    assert error.max() <= 1
    assert error.mean() < 0.01


def test_flips(photos):
    plain = resample(photos[0], [70, 70], [0, 0], 70, True)
    flipped = resample(photos[0], [70, 70], [0, 0], 70, True, flip=True)
    np.testing.assert_array_equal(flipped, plain[:, ::-1])
    assert not np.array_equal(flipped, plain)


def test_takes_tensors_for_what_is_drawn(photos):
    @tf.function
    def traced(cubic, flip):
        return resample(photos[1], [40, 40], [0, 0], 40, cubic, flip)

    for cubic in (False, True):
        for flip in (False, True):
            np.testing.assert_array_equal(
                traced(tf.constant(cubic), tf.constant(flip)),
                resample(photos[1], [40, 40], [0, 0], 40, cubic, flip),
            )


def test_no_more_is_computed_than_the_window_needs(monkeypatch):
    """A small file may hold such a long image."""
    sizes = []

    def matmul(a, b, **arguments):
        sizes.extend([tf.size(a), tf.size(b)])
        return original(a, b, **arguments)

    original = tf.matmul
    monkeypatch.setattr(tf, "matmul", matmul)
    image = tf.zeros((50_000, 5, 3), tf.uint8)
    window = resample(image, [320_000, 32], [160_000, 0], 32, True)
    assert window.shape == (32, 32, 3)
    assert 0 < max(sizes) <= 32 * 32 * 3
