import keras
import numpy as np
import pytest

from convmixer_tf import ConvMixer256_8
from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.layers import CovarianceInitializer
from convmixer_tf.layers.initializers import tap_covariance


def paper_covariance(size, variance):
    """Builds the paper's covariance, block by block, for odd sizes."""
    ones = np.ones((size, size))
    far = np.arange(-2 * size, 2 * size + 1)
    wide = np.exp(-(far[:, None] ** 2 + far**2) / (2 * variance))
    middle, half = 2 * size, size // 2

    def at(row, column):  # The Gaussian around a tap.
        top, left = middle - row, middle - column
        return wide[top : top + size, left : left + size]

    center = at(half, half)
    shifted = np.block([[at(i, j) for j in range(size)] for i in range(size)])
    static = np.tile(center, (size, size))
    mask = np.kron(center, ones)
    blocks = mask * (shifted - static / 2)
    rows = blocks.reshape(size, size, size, size).transpose(0, 2, 1, 3)
    matrix = rows.reshape(size**2, size**2)
    return (matrix + matrix.T) / 2


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("variance", [0.16, 1.92])
def test_the_closed_form_is_the_papers(size, variance):
    np.testing.assert_allclose(
        tap_covariance(size, size, variance), paper_covariance(size, variance)
    )


@pytest.mark.parametrize(
    ("depth", "variance"), [(0, 0.16), (0.5, 0.68), (1, 1.92)]
)
@pytest.mark.parametrize("shape", [(5, 5), (4, 4), (3, 6)])
def test_the_covariance_of_many_kernels_is_the_closed_form(
    shape, depth, variance
):
    count = 40_000
    kernels = CovarianceInitializer(depth, seed=0)((*shape, count, 1))
    taps = np.reshape(kernels, (-1, count))
    expected = tap_covariance(*shape, variance)
    found = taps @ taps.T / count
    # The standard error of an entry is at most sqrt(2 / count) of a variance.
    np.testing.assert_allclose(found, expected, atol=0.03 * expected.max())
    assert np.abs(taps.mean(1)).max() < 0.03


def test_the_center_of_an_even_kernel_is_the_tap_on_the_output():
    variances = np.diag(tap_covariance(4, 4, 0.5)).reshape(4, 4)
    assert np.unravel_index(variances.argmax(), (4, 4)) == (1, 1)
    # This tap copies an image with "same" padding.
    kernel = np.zeros((4, 4, 1, 1), "float32")
    kernel[1, 1] = 1
    image = np.random.default_rng(0).random((1, 6, 6, 1), "float32")
    copy = keras.ops.depthwise_conv(image, kernel, padding="same")
    np.testing.assert_array_equal(copy, image)


def test_later_kernels_are_wider():
    kernels = [CovarianceInitializer(t, seed=0)((9, 9, 500, 1)) for t in (0, 1)]
    outside = [np.square(x)[[0, 1, -1, -2]].mean() for x in kernels]
    assert outside[0] < 1e-4 < 0.01 < outside[1]


def test_kernels_follow_the_seed():
    first, same, other = (
        np.array(CovarianceInitializer(0.5, seed=seed)((3, 3, 4, 2)))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)
    drawn = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        pair = [CovarianceInitializer(0.5)((3, 3, 4, 1)) for _ in range(2)]
        drawn.append(np.array(pair))
    np.testing.assert_array_equal(*drawn)
    assert not np.allclose(*drawn[0])


def test_config_round_trip():
    initializer = CovarianceInitializer(0.25, variances=(0.1, 0.2, 1), seed=3)
    saved = keras.initializers.serialize(initializer)
    restored = keras.initializers.deserialize(saved)
    np.testing.assert_array_equal(
        restored((5, 5, 2, 1)), initializer((5, 5, 2, 1))
    )
    assert restored.get_config() == initializer.get_config()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtype(dtype):
    kernel = CovarianceInitializer(0.5, seed=0)((3, 3, 4, 1), dtype)
    assert keras.backend.standardize_dtype(kernel.dtype) == dtype


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 1.5}, "`depth` must be a number of at least 0 and at most"),
        ({"depth": "last"}, "`depth` must be a number"),
        (
            {"depth": 0.0, "variances": (0, 1, 1)},
            r"`variances` must give a positive variance at depth=0\.0",
        ),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        CovarianceInitializer(**arguments)


def test_only_depthwise_kernels():
    with pytest.raises(ValueError, match=r"Received: shape=\(3, 4\)"):
        CovarianceInitializer(0.5)((3, 4))


def test_a_block_takes_any_initializer():
    block = ConvMixerBlock(3, depthwise_initializer="zeros")
    block.build((None, 8, 8, 4))
    assert not np.any(block.depthwise.kernel)
    copy = ConvMixerBlock.from_config(block.get_config())
    copy.build((None, 8, 8, 4))
    assert not np.any(copy.depthwise.kernel)


def test_trained_kernels_have_nearly_this_covariance():
    model = ConvMixer256_8()
    for number in range(8):
        kernel = model.get_layer(f"block_{number}").depthwise.kernel
        found = np.cov(np.reshape(kernel, (25, -1)))

        def likeness(matrix, found=found):
            return np.corrcoef(found.ravel(), matrix.ravel())[0, 1]

        independent = likeness(np.eye(25))  # 0.41 to 0.69
        closest = max(
            likeness(tap_covariance(5, 5, variance))
            for variance in (0.5, 1.0, 2.0, 4.0)
        )
        assert closest > independent + 0.1
