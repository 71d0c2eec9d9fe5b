import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.training.optimizer import AdamW
from convmixer_tf.training.optimizer import clip_by_global_norm
from convmixer_tf.training.optimizer import layer_rates
from tests.training import tiny

SHAPES = [(3, 4), (4,), (2, 2, 3, 1)]
RATES = [0.01, 0.02, 0.005, 0.0, 0.01] * 6


def gradients(seed=1):
    rng = np.random.default_rng(seed)
    # Many orders of magnitude, so that epsilon matters for some.
    scale = 10.0 ** rng.uniform(-6, 0, len(RATES))
    return [
        [(s * rng.normal(size=shape)).astype(np.float32) for shape in SHAPES]
        for s in scale
    ]


def initial():
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]


def run_ours(clip_norm=None, wanted=True, **settings):
    variables = [tf.Variable(value) for value in initial()]
    optimizer = AdamW(variables, **settings)
    strategy = tf.distribute.get_strategy()

    @tf.function
    def update(values, rate):
        values, _ = clip_by_global_norm(values, clip_norm)
        optimizer.apply(strategy, values, rate, tf.constant(wanted))

    for values, rate in zip(gradients(), RATES, strict=True):
        update([tf.constant(value) for value in values], tf.constant(rate))
    return [variable.numpy() for variable in variables], optimizer


SETTINGS = [
    {"epsilon": 1e-3, "weight_decay": 2e-5, "decay_all": False},
    {"epsilon": 1e-8, "weight_decay": 0.05, "decay_all": True},
    {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-6, "weight_decay": 0.1},
]


@pytest.mark.peer
@pytest.mark.parametrize("clip_norm", [None, 0.1])
@pytest.mark.parametrize("settings", SETTINGS)
def test_adamw_is_pytorchs(settings, clip_norm):
    torch = pytest.importorskip("torch")
    parameters = [torch.nn.Parameter(torch.tensor(x)) for x in initial()]
    settings = dict(settings)
    betas = (settings.pop("beta_1", 0.9), settings.pop("beta_2", 0.999))
    decay_all = settings.pop("decay_all", False)
    decay = settings.pop("weight_decay")
    groups = [
        {
            "params": [parameter],
            "weight_decay": decay if decay_all or parameter.ndim > 1 else 0.0,
        }
        for parameter in parameters
    ]
    optimizer = torch.optim.AdamW(groups, betas=betas, eps=settings["epsilon"])
    for values, rate in zip(gradients(), RATES, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for parameter, value in zip(parameters, values, strict=True):
            parameter.grad = torch.tensor(value)
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
        optimizer.step()
    ours, _ = run_ours(
        clip_norm,
        beta_1=betas[0],
        beta_2=betas[1],
        weight_decay=decay,
        decay_all=decay_all,
        **settings,
    )
    for got, expected in zip(ours, parameters, strict=True):
        expected = expected.detach().numpy()
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-7)


def test_adamw_is_the_papers_with_pytorchs_epsilon():
    beta_1, beta_2, epsilon, decay = 0.9, 0.999, 1e-3, 0.1
    for index, expected in enumerate(np.float64(x) for x in initial()):
        mean = square = 0
        steps = zip(gradients(), RATES, strict=True)
        for count, (values, rate) in enumerate(steps, 1):
            gradient = np.float64(values[index])
            mean = beta_1 * mean + (1 - beta_1) * gradient
            square = beta_2 * square + (1 - beta_2) * gradient**2
            root = np.sqrt(square / (1 - beta_2**count))
            if expected.ndim > 1:
                expected = expected * (1 - rate * decay)
            step = rate * mean / (1 - beta_1**count)
            expected = expected - step / (root + epsilon)
        ours, _ = run_ours(epsilon=epsilon, weight_decay=decay)
        np.testing.assert_allclose(ours[index], expected, rtol=1e-5, atol=1e-6)


def test_an_unwanted_update_changes_nothing():
    ours, optimizer = run_ours(wanted=False)
    for got, expected in zip(ours, initial(), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert optimizer.updates.numpy() == 0
    assert all(not np.any(mean.numpy()) for mean in optimizer.means)


def test_rate_scales_are_factors_of_the_rate():
    scaled, _ = run_ours(rate_scales=[0.5, 0.0, 1.0], weight_decay=0.0)
    full, _ = run_ours(weight_decay=0.0)
    start = initial()
    np.testing.assert_allclose(
        scaled[0] - start[0], (full[0] - start[0]) / 2, atol=1e-6
    )
    np.testing.assert_array_equal(scaled[1], start[1])
    np.testing.assert_array_equal(scaled[2], full[2])


def test_clipping_scales_all_gradients_together():
    values = [tf.constant([3.0, 0.0]), tf.constant([4.0])]
    clipped, norm = clip_by_global_norm(values, 1.0)
    assert norm == 5
    np.testing.assert_allclose(clipped[0], [0.6, 0], rtol=1e-5)
    np.testing.assert_allclose(clipped[1], [0.8], rtol=1e-5)
    unclipped, _ = clip_by_global_norm(values, 10.0)
    np.testing.assert_array_equal(unclipped[0], values[0])


def test_layer_rates_decay_toward_the_image():
    variables = tiny.build_model().trainable_variables
    rates = layer_rates(variables, 0.5)
    expected = {"patch_embed": 0.25, "block_0": 0.5, "predictions": 1.0}
    assert {v.path.split("/")[0] for v in variables} == set(expected)
    for variable, rate in zip(variables, rates, strict=True):
        assert rate == expected[variable.path.split("/")[0]]
