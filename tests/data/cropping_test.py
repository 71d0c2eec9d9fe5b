import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import stats

from convmixer_tf.data import PadAndCrop
from convmixer_tf.data import RandomResizedCrop
from convmixer_tf.data.cropping import resize_and_center_crop


def encode(image):
    return tf.io.encode_png(image)


def draw_boxes(crop, height, width, count):
    draws = tf.random.stateless_uniform([count, crop.num_draws], [1, 2])
    boxes = tf.vectorized_map(
        lambda x: tf.stack(crop._box(height, width, x)), draws
    )
    return boxes.numpy()


def test_box_statistics():
    boxes = draw_boxes(RandomResizedCrop(), 375, 500, 10_000)
    top, left, rows, columns = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + rows <= 375).all()
    assert (left + columns <= 500).all()
    # The same in NumPy.
    random = np.random.default_rng(0)
    area = random.uniform(0.08, 1, (20_000, 10)) * 375 * 500
    aspect = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3), (20_000, 10)))
    width, height = np.sqrt(area * aspect), np.sqrt(area / aspect)
    fits = (np.round(width) <= 500) & (np.round(height) <= 375)
    chosen = range(20_000), fits.argmax(1)
    some = fits.any(1)
    assert some.mean() > 0.9999
    for ours, peer in ((rows, height[chosen]), (columns, width[chosen])):
        assert stats.ks_2samp(ours, peer.round()).pvalue > 1e-4
    inside = rows < 300
    place = top[inside] / (375 - rows[inside])
    assert place.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (40, 10_000, (0, 4973, 40, 53)),
        (10_000, 40, (4973, 0, 53, 40)),
        (1, 1, (0, 0, 1, 1)),
    ],
)
def test_box_of_extreme_images(height, width, expected):
    crop = RandomResizedCrop(min_area=0.9)
    boxes = draw_boxes(crop, height, width, 20)
    np.testing.assert_array_equal(np.unique(boxes, axis=0), [expected])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_random_resized_crop_equals_pillow(photos, interpolation):
    crop = RandomResizedCrop(interpolation=interpolation)
    draws = tf.random.stateless_uniform([crop.num_draws], [5, 6])
    image = crop(encode(photos[0]), 96, draws, flip=True)
    top, left, rows, columns = (int(x) for x in crop._box(427, 640, draws))
    box = Image.fromarray(photos[0][top : top + rows, left : left + columns])
    filter_ = Image.Resampling[interpolation.upper()]
    # In two steps, since Pillow 13 starts with the rows of some images.
    expected = box.resize((96, rows), filter_).resize((96, 96), filter_)
    error = np.abs(image.numpy()[:, ::-1] - np.asarray(expected, int))
    assert error.max() <= 1


@pytest.mark.slow
def test_random_interpolation_is_one_of_the_two(photos):
    seen = set()
    for seed in range(8):
        draws = tf.random.stateless_uniform([23], [seed, 0])
        images = [
            RandomResizedCrop(interpolation=name)(
                encode(photos[0]), 32, draws, False
            ).numpy()
            for name in ("random", "bilinear", "bicubic")
        ]
        same = [np.array_equal(images[0], image) for image in images[1:]]
        assert sorted(same) == [False, True]
        seen.add(same[0])
    assert seen == {False, True}


def test_pad_and_crop(photos):
    image = photos[0][100:132, 100:132]
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    corners = set()
    for y in (0.0, 0.5, 0.9999):
        for x in (0.0, 0.3, 0.9999):
            crop = PadAndCrop(4)(encode(image), 32, tf.constant([y, x]), False)
            top, left = int(y * 9), int(x * 9)
            np.testing.assert_array_equal(
                crop, padded[top : top + 32, left : left + 32]
            )
            corners.add((top, left))
    assert {(0, 0), (8, 8), (4, 2)} <= corners
    flipped = PadAndCrop(4)(encode(image), 32, tf.constant([0.5, 0.5]), True)
    np.testing.assert_array_equal(flipped, image[:, ::-1])


@pytest.mark.parametrize("size", [32, 97, 224])
@pytest.mark.parametrize("fraction", [0.875, 0.96, 1.0])
@pytest.mark.parametrize("turned", [False, True])
def test_evaluation_transform_equals_pillow(photos, size, fraction, turned):
    image = photos[1].swapaxes(0, 1) if turned else photos[1]
    height, width = image.shape[:2]
    shorter = int(size / fraction)
    new_width = int(shorter * width / min(height, width))
    new_height = int(shorter * height / min(height, width))
    whole = Image.fromarray(image)
    whole = whole.resize((new_width, height), Image.Resampling.BICUBIC)
    whole = whole.resize((new_width, new_height), Image.Resampling.BICUBIC)
    top = round((new_height - size) / 2)
    left = round((new_width - size) / 2)
    expected = np.asarray(whole, int)[top : top + size, left : left + size]
    actual = resize_and_center_crop(image, size, fraction).numpy()
    error = np.abs(actual - expected)
    assert np.max(error) <= 1
    assert np.mean(error) < 0.01


@pytest.mark.parametrize("shape", [(1, 1), (40, 10_000), (10_000, 40)])
def test_evaluation_transform_of_extreme_images(shape):
    image = tf.fill([*shape, 3], tf.constant(9, tf.uint8))
    result = resize_and_center_crop(image, 224)
    np.testing.assert_array_equal(result, np.full((224, 224, 3), 9))


@pytest.mark.slow
def test_evaluation_transform_can_be_saved(photos, tmp_path):
    module = tf.Module()
    module.transform = tf.function(
        lambda image: resize_and_center_crop(image, 64),
        input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)],
    )
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    np.testing.assert_array_equal(
        loaded.transform(photos[0]), resize_and_center_crop(photos[0], 64)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: RandomResizedCrop(min_area=0.0),
            "`min_area` must be from 0.001 to 1",
        ),
        (lambda: RandomResizedCrop(max_area=2.0), "`max_area` must be from"),
        (
            lambda: RandomResizedCrop(min_aspect=2.0),
            "`min_aspect` must be from 0.01 to 1",
        ),
        (
            lambda: RandomResizedCrop(interpolation="area"),
            "`interpolation` must be one of 'random', 'bilinear', 'bicubic'",
        ),
        (lambda: PadAndCrop(0), "`padding` must be a positive integer"),
        (
            lambda: resize_and_center_crop(np.zeros((2, 2, 3)), 0),
            "`size` must be a positive integer",
        ),
        (
            lambda: resize_and_center_crop(np.zeros((2, 2, 3)), 2, 1.5),
            "`crop_fraction` must be from 0.01 to 1",
        ),
    ],
)
def test_refuses_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
