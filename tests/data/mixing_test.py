import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from convmixer_tf.data import Mixing
from convmixer_tf.data.mixing import mix
from convmixer_tf.data.mixing import smooth_labels

MIXUP = {"cutmix_alpha": 0.0}
CUTMIX = {"mixup_alpha": 0.0}


def telltale_batch(count, size=16, dtype="float32"):
    """Image i has the value i everywhere and the class i."""
    images = np.zeros((count, size, size, 3), dtype)
    images += np.arange(count, dtype=dtype)[:, None, None, None]
    return tf.constant(images), tf.one_hot(range(count), count)


def mix_many(config, count=10_000, size=8):
    """Mixes black and white images, so that pixels are the mixing ratio."""
    images = np.zeros((count, size, size, 1), "float32")
    images[count // 2 :] = 1.0
    labels = np.stack([images[:, 0, 0, 0] == 0, images[:, 0, 0, 0]], 1)
    images, labels = mix(
        tf.constant(images), tf.constant(labels, tf.float32), [5, 6], config
    )
    half = count // 2
    return images.numpy()[:half, ..., 0], labels.numpy()[:half, 1]


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0])
def test_mixup_share_follows_beta(alpha):
    images, share = mix_many(Mixing(alpha, 0.0, mode="pair"), count=20_000)
    assert stats.kstest(share, stats.beta(alpha, alpha).cdf).pvalue > 0.001
    np.testing.assert_allclose(images.mean((1, 2)), share, atol=1e-5)
    assert images.std((1, 2)).max() < 1e-5


def test_cutmix_area_is_the_share():
    images, share = mix_many(Mixing(0.0, 0.5, mode="elem"))
    assert set(np.unique(images)) == {0.0, 1.0}
    np.testing.assert_allclose(images.mean((1, 2)), share, atol=1e-6)


def test_cutmix_box_has_the_drawn_area_unless_clipped():
    # Beta(1000, 1000) is about 1/2: a box of 22 of 32 pixels, minus the part
    # beyond the border, averaged over uniform centers.
    config = Mixing(0.0, 100.0, mode="elem")
    _, share = mix_many(config, count=20_000, size=32)
    center = np.arange(32)
    side = 2 * (int(32 * np.sqrt(0.5)) // 2)
    visible = np.minimum(center + side // 2, 32) - np.maximum(
        center - side // 2, 0
    )
    assert share.mean() == pytest.approx((visible.mean() / 32) ** 2, rel=0.03)
    assert share.max() <= 0.62


def test_batch_mode_draws_once_and_takes_the_mirrored_partner():
    images, labels = telltale_batch(6)
    kinds = set()
    for seed in range(20):
        mixed, targets = mix(images, labels, [seed, 0], Mixing())
        share = targets.numpy()[range(6), range(5, -1, -1)]
        assert np.ptp(share) < 1e-6
        # For pixels i + w * (5 - 2i), w is the same in all images.
        weight = (mixed[0] - images[0]) / 5.0
        for index in range(6):
            np.testing.assert_allclose(
                mixed[index], index + weight * (5 - 2 * index), atol=1e-5
            )
        np.testing.assert_allclose(np.mean(weight), share[0], atol=1e-5)
        kinds.add(bool(np.ptp(weight) > 0.5))
    assert kinds == {False, True}


def test_cutmix_probability_and_probability():
    images, share = mix_many(Mixing(mode="elem", probability=0.6))
    is_cut = images.max((1, 2)) - images.min((1, 2)) > 0.5
    is_mixup = ~is_cut & (share > 0) & (share < 1)
    count = len(share)
    # CutMix boxes with a side below 2 pixels are empty, and boxes over the
    # whole image are invisible, so only mixup is counted: 0.6 * 0.5.
    assert np.mean(is_mixup) == pytest.approx(0.3, abs=4 / np.sqrt(count))
    untouched = np.mean(images.max((1, 2)) == 0)
    assert 0.4 < untouched < 0.65


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("count", [1, 5, 8])
def test_labels_match_pixels_and_sum_to_one(mode, count):
    images, _ = telltale_batch(count)
    labels = smooth_labels(range(count), count, 0.1)
    for seed in range(6):
        mixed, targets = mix(images, labels, [seed, 1], Mixing(mode=mode))
        np.testing.assert_allclose(np.sum(targets, 1), 1.0, atol=1e-6)
        own = np.arange(count)
        partner = own[::-1]
        share = (np.diag(targets) - 0.1 / count) / 0.9
        share = np.where(own == partner, 1.0, share)
        expected = share * own + (1 - share) * partner
        np.testing.assert_allclose(
            np.mean(mixed, (1, 2, 3)), expected, atol=1e-4
        )


def test_pairs_share_a_draw_and_elements_do_not():
    images, labels = telltale_batch(8)
    _, pair = mix(images, labels, [0, 0], Mixing(**MIXUP, mode="pair"))
    share = np.diag(pair)
    np.testing.assert_allclose(share, share[::-1], atol=1e-6)
    assert len(np.unique(share.round(5))) == 4
    _, elem = mix(images, labels, [0, 0], Mixing(**MIXUP, mode="elem"))
    assert len(np.unique(np.diag(elem).round(5))) == 8


def test_uint8_is_rounded():
    images, labels = telltale_batch(6, dtype="uint8")
    for seed in range(8):
        exact, _ = mix(tf.cast(images, tf.float32), labels, [seed, 0], Mixing())
        mixed, _ = mix(images, labels, [seed, 0], Mixing())
        assert mixed.dtype == tf.uint8
        np.testing.assert_allclose(mixed, exact, atol=0.5001)


def test_runs_in_replicas_and_in_a_pipeline_alike():
    images, labels = telltale_batch(4)
    expected = mix(images, labels, [1, 2], Mixing())
    strategy = tf.distribute.OneDeviceStrategy("cpu:0")

    @tf.function
    def step(images, labels):
        return strategy.run(
            lambda x, y: mix(x, y, [1, 2], Mixing()), args=(images, labels)
        )

    dataset = tf.data.Dataset.from_tensors((images, labels))
    dataset = dataset.map(lambda x, y: mix(x, y, [1, 2], Mixing()))
    for actual in (step(images, labels), next(iter(dataset))):
        assert actual[0].shape == images.shape
        np.testing.assert_allclose(actual[0], expected[0], atol=1e-5)
        np.testing.assert_allclose(actual[1], expected[1], atol=1e-6)


def test_smooth_labels():
    labels = smooth_labels([3], 1000, 0.1).numpy()[0]
    assert labels[3] == pytest.approx(0.9001)
    assert labels[0] == pytest.approx(0.0001)
    np.testing.assert_array_equal(smooth_labels([1], 3), [[0, 1, 0]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixup_alpha": -1}, "`mixup_alpha` must be from 0"),
        ({"cutmix_alpha": -1}, "`cutmix_alpha` must be from 0"),
        ({"probability": 2}, "`probability` must be from 0 to 1"),
        ({"cutmix_probability": 2}, "`cutmix_probability` must be from 0 to"),
        ({"mode": "half"}, "`mode` must be one of 'batch', 'pair', 'elem'"),
        ({**MIXUP, **CUTMIX}, "must not both be 0"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Mixing(**settings)
