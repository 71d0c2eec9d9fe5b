import keras
import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.training.muon import Muon
from convmixer_tf.training.muon import orthogonalize
from convmixer_tf.training.optimizer import AdamW
from tests.training import tiny

# A 1 x 1 kernel, tall and wide; a depthwise kernel of one tap; the patch
# embedding's; a classifier's; a bias.
MATRICES = [(1, 1, 6, 6), (1, 1, 8, 3), (1, 1, 3, 8)]
OTHERS = [(1, 1, 6, 1), (2, 2, 3, 6), (6, 4), (6,)]
SHAPES = MATRICES + OTHERS
RATES = [0.01, 0.02, 0.005, 0.0, 0.01]


def values(seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]


def run_ours(wanted=True, **settings):
    variables = [tf.Variable(value) for value in values(0)]
    optimizer = Muon(variables, **settings)
    strategy = tf.distribute.get_strategy()

    @tf.function
    def update(gradients, rate):
        optimizer.apply(strategy, gradients, rate, tf.constant(wanted))

    for number, rate in enumerate(RATES, 1):
        gradients = [tf.constant(value) for value in values(number)]
        update(gradients, tf.constant(rate))
    return [variable.numpy() for variable in variables], optimizer


def numpy_orthogonalize(matrix):
    x = matrix / (np.sqrt(np.sum(matrix**2)) + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return x


def test_matrices_follow_the_paper_in_float64():
    ours, _ = run_ours(rate_ratio=2.0, momentum=0.9, weight_decay=0.1)
    for index, shape in enumerate(MATRICES):
        expected = np.float64(values(0)[index][0, 0])
        total = 0
        for number, rate in enumerate(RATES, 1):
            gradient = np.float64(values(number)[index][0, 0])
            total = 0.9 * total + gradient
            step = numpy_orthogonalize(gradient + 0.9 * total)
            step *= 0.2 * np.sqrt(max(shape))
            expected = expected * (1 - 2 * rate * 0.1) - 2 * rate * step
        np.testing.assert_allclose(ours[index][0, 0], expected, atol=1e-5)


def test_matrices_are_updated_as_keras_updates_a_matrix():
    ours, _ = run_ours(weight_decay=0.1)
    for index, expected in enumerate(ours[: len(MATRICES)]):
        matrix = keras.Variable(values(0)[index][0, 0])
        optimizer = keras.optimizers.Muon(0.0, weight_decay=0.1)
        for number, rate in enumerate(RATES, 1):
            optimizer.learning_rate = rate
            gradient = tf.constant(values(number)[index][0, 0])
            optimizer.apply([gradient], [matrix])
        np.testing.assert_allclose(matrix, expected[0, 0], atol=1e-5)


def test_all_else_is_updated_by_adamw():
    settings = {"weight_decay": 0.1, "beta_1": 0.8, "epsilon": 1e-4}
    ours, _ = run_ours(rate_ratio=7.0, **settings)
    first = len(MATRICES)
    variables = [tf.Variable(value) for value in values(0)[first:]]
    optimizer = AdamW(variables, **settings)
    for number, rate in enumerate(RATES, 1):
        gradients = [tf.constant(value) for value in values(number)[first:]]
        optimizer.apply(
            *(tf.distribute.get_strategy(), gradients),
            *(tf.constant(rate), tf.constant(True)),
        )
    for got, expected in zip(ours[first:], variables, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_an_unwanted_update_changes_nothing():
    ours, optimizer = run_ours(wanted=False)
    for got, expected in zip(ours, values(0), strict=True):
        np.testing.assert_array_equal(got, expected)
    state = tf.nest.flatten(optimizer.state())
    assert len(state) == len(MATRICES) + 2 * len(OTHERS) + 1
    assert not any(np.any(variable.numpy()) for variable in state)


def test_rate_scales_are_factors_of_the_rate():
    scales = [0.0, 0.5, 1.0, 0.0, 1.0, 1.0, 1.0]
    scaled, _ = run_ours(rate_scales=scales, weight_decay=0.0)
    full, _ = run_ours(weight_decay=0.0)
    start = values(0)
    np.testing.assert_array_equal(scaled[0], start[0])
    np.testing.assert_allclose(
        scaled[1] - start[1], (full[1] - start[1]) / 2, atol=1e-6
    )
    np.testing.assert_array_equal(scaled[2], full[2])
    np.testing.assert_array_equal(scaled[3], start[3])


@pytest.mark.parametrize("shape", [(16, 16), (40, 8), (8, 40)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_singular_values_become_nearly_one(shape, scale):
    matrix = scale * np.random.default_rng(0).normal(size=shape)
    x = orthogonalize(tf.constant(matrix, tf.float32)).numpy()
    found = np.linalg.svd(x, compute_uv=False)
    # The smallest of the square matrix is below 1 % of the norm.
    assert found.max() < 1.25
    assert found.min() > (0.5 if shape[0] != shape[1] else 0.2)
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    assert np.sum(x * (left @ right)) > 0.8 * min(shape)


def test_zero_stays_zero():
    assert not np.any(orthogonalize(tf.zeros((4, 6))))


def test_the_pointwise_kernels_of_a_convmixer_are_the_matrices():
    model = tiny.build_model()
    optimizer = Muon(model.trainable_variables)
    pairs = zip(model.trainable_variables, optimizer.is_matrix, strict=True)
    paths = [variable.path for variable, is_matrix in pairs if is_matrix]
    assert paths == ["block_0/pointwise/kernel"]
