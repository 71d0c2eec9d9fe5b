"""Tests confidence intervals."""

import numpy as np
import pytest
from scipy import stats

from convmixer_tf.intervals import exact_interval
from convmixer_tf.intervals import paired_interval
from convmixer_tf.intervals import wilson_interval


@pytest.mark.parametrize(
    ("successes", "count", "expected"),
    [
        # Newcombe, Statistics in Medicine 17, 1998, table I, method 3.
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        (20, 20, (0.8389, 1.0)),
    ],
)
def test_wilsons_interval_as_published(successes, count, expected):
    found = wilson_interval(successes, count)
    np.testing.assert_allclose(found, expected, atol=5e-5)


@pytest.mark.parametrize(
    ("successes", "count"),
    [(99, 100), (96, 100), (143, 150), (0, 20), (20, 20), (1, 1), (700, 3000)],
)
def test_the_exact_interval_is_that_of_scipy(successes, count):
    found = stats.binomtest(successes, count).proportion_ci(method="exact")
    np.testing.assert_allclose(
        exact_interval(successes, count), (found.low, found.high), atol=1e-9
    )


def test_a_paired_interval_holds_the_fall():
    low, high = paired_interval(12, 2, 200)
    assert low < 10 / 200 < high
    assert low > 0  # 12 against 2 is significant.
    assert paired_interval(3, 2, 200)[0] < 0 < paired_interval(3, 2, 200)[1]
    mirrored = paired_interval(2, 12, 200)
    np.testing.assert_allclose(mirrored, (-high, -low))


def test_a_paired_interval_covers_what_it_says():
    rng = np.random.default_rng(0)
    counts = rng.multinomial(150, [0.06, 0.02, 0.92], 2000)
    inside = [
        low <= 0.04 <= high
        for low, high in (paired_interval(a, b, 150) for a, b, _ in counts)
    ]
    assert 0.93 < np.mean(inside) < 0.98
