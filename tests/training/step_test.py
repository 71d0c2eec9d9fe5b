"""Tests that one replica, two and accumulated batches train the same."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.training.inputs import distribute
from convmixer_tf.training.step import Engine
from tests.training import tiny

STEPS = 20
# Clipping is active at every step: the norms are around 1.
SETTINGS = {
    "epochs": 5,
    "steps_per_epoch": 4,
    "clip_norm": 0.3,
    "ema_decay": 0.9,
    "weight_decay": 0.1,
    "layer_decay": 0.9,
}


def run(strategy, frozen_norms=False, change=None, **changes):
    config = tiny.config(**{**SETTINGS, **changes})
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = tiny.build_model(frozen_norms=frozen_norms)
        engine = Engine(config, model, strategy)
    count = config.accumulation_steps
    batches = tiny.train_batches(config.batch_size // count)

    def load(epoch, context):
        data = batches(epoch, 0, context)
        return data.map(change) if change else data

    results = []
    for epoch in range(STEPS // 4):
        data = iter(distribute(strategy, functools.partial(load, epoch)))
        for _ in range(4):
            step = engine.update(data)
            results.append({k: float(v[0]) for k, v in step.items()})
    engine.merge_batch_norms()
    assert engine._updates.experimental_get_tracing_count() == 1
    return engine, results


def everything(engine):
    values = tiny.weights_of(engine.model)
    for i, mean in enumerate(engine.average.means):
        values[f"average {i}"] = mean.numpy()
    return values


def step_once(engine, images, labels):
    data = tf.data.Dataset.from_tensors((images, labels))
    batches = distribute(engine.strategy, lambda context: data)
    return engine.update(iter(batches))


@pytest.fixture(scope="module")
def one_replica(one_device):
    engine, results = run(one_device)
    assert all(step["gradient_norm"] > 0.3 for step in results)
    assert results[-1]["loss"] < results[0]["loss"] - 0.1
    return everything(engine), results


def test_two_replicas_equal_one(one_replica, two_replicas):
    engine, results = run(two_replicas, sync_batch_norm=True)
    assert tiny.worst_difference(one_replica[0], everything(engine)) < 1e-5
    for ours, expected in zip(results, one_replica[1], strict=True):
        assert ours == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_muon_on_two_replicas_is_muon_on_one(
    one_device, two_replicas, accumulation_steps
):
    settings = {
        "optimizer": "muon",
        "frozen_norms": True,
        "batch_size": 16 * accumulation_steps,
    }
    one, results = run(one_device, **settings)
    assert results[-1]["loss"] < results[0]["loss"] - 0.1
    settings["accumulation_steps"] = accumulation_steps
    two, _ = run(two_replicas, **settings)
    assert tiny.worst_difference(everything(one), everything(two)) < 1e-5
    for total in two.optimizer.sums:
        first, second = (copy.numpy() for copy in total.values)
        np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_muon_trains_alike_in_bfloat16(one_device):
    _, expected = run(one_device, optimizer="muon")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        engine, results = run(one_device, optimizer="muon")
    finally:
        keras.config.set_dtype_policy("float32")
    assert all(total.dtype == tf.float32 for total in engine.optimizer.sums)
    np.testing.assert_allclose(
        *([step["loss"] for step in steps] for steps in (results, expected)),
        rtol=0.02,
    )


def test_an_infinite_gradient_changes_nothing_of_muons(one_device):
    with one_device.scope():
        model = tiny.build_model(frozen_norms=True)
        engine = Engine(tiny.config(optimizer="muon"), model, one_device)
    before = tiny.weights_of(model)
    images, labels = tiny.examples()
    images[3] = np.inf
    step_once(engine, images[:16], labels[:16])
    assert tiny.worst_difference(before, tiny.weights_of(model)) == 0
    assert not any(np.any(total.numpy()) for total in engine.optimizer.sums)


@pytest.mark.slow
def test_two_replicas_equal_one_with_frozen_norms(one_device, two_replicas):
    one, _ = run(one_device, frozen_norms=True)
    two, _ = run(two_replicas, frozen_norms=True)
    assert tiny.worst_difference(everything(one), everything(two)) < 1e-5


@pytest.mark.slow
def test_accumulated_batches_equal_one_large(one_device, two_replicas):
    large, _ = run(one_device, frozen_norms=True, batch_size=32)
    # 2 x 16 images, on one replica and on two.
    for strategy in (one_device, two_replicas):
        small, _ = run(
            strategy, frozen_norms=True, batch_size=32, accumulation_steps=2
        )
        difference = tiny.worst_difference(everything(large), everything(small))
        assert difference < 1e-5


@pytest.mark.slow
def test_replicas_normalize_on_their_own_by_default(one_replica, two_replicas):
    engine, _ = run(two_replicas)
    assert tiny.worst_difference(one_replica[0], everything(engine)) > 1e-3


@pytest.mark.slow
def test_running_statistics_are_averaged_over_replicas(two_replicas):
    with two_replicas.scope():
        model = tiny.build_model()
        engine = Engine(tiny.config(ema_decay=0.5), model, two_replicas)
    norm = model.get_layer("patch_embed").norm
    before = norm.moving_mean.numpy()
    images, labels = tiny.examples()
    # The second replica's images are black.
    images = np.concatenate([images[:8], 0 * images[:8]])
    step_once(engine, images, np.tile(labels[:8], 2))
    own = [copy.numpy() for copy in norm.moving_mean.value.values]
    assert np.max(np.abs(own[0] - own[1])) > 1e-3
    engine.merge_batch_norms()
    for copy in norm.moving_mean.value.values:
        np.testing.assert_allclose(copy.numpy(), (own[0] + own[1]) / 2)
    index = [v is norm.moving_mean.value for v in engine.average.targets]
    average = engine.average.means[index.index(True)]
    for copy in average.values:
        expected = (before + (own[0] + own[1]) / 2) / 2
        np.testing.assert_allclose(copy.numpy(), expected, rtol=1e-5)


@pytest.mark.slow
def test_the_average_lags_behind_the_weights(one_device):
    engine, _ = run(one_device, ema_decay=0.5, schedule="constant")
    weight = engine.average.targets[0]
    expected, mean = weight.numpy(), engine.average.means[0].numpy()
    engine.average.swap()
    np.testing.assert_array_equal(weight.numpy(), mean)
    np.testing.assert_array_equal(engine.average.means[0].numpy(), expected)
    assert np.max(np.abs(mean - expected)) > 1e-6


@pytest.mark.parametrize("bad_replica", [0, 1])
def test_an_infinite_gradient_on_any_replica_changes_no_weight(
    two_replicas, bad_replica
):
    with two_replicas.scope():
        model = tiny.build_model(frozen_norms=True)
        engine = Engine(tiny.config(), model, two_replicas)
    before = tiny.weights_of(model)
    images, labels = tiny.examples()
    images[8 * bad_replica] = np.inf
    step_once(engine, images[:16], labels[:16])
    assert tiny.worst_difference(before, tiny.weights_of(model)) == 0
    assert engine.first_bad_step.numpy() == 1
    assert engine.steps.numpy() == 1
    assert engine.optimizer.updates.numpy() == 0


@pytest.mark.slow
@pytest.mark.parametrize("bad_replica", [None, 0, 1])
def test_float16_scales_the_loss_by_what_all_replicas_see(
    two_replicas, bad_replica
):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        with two_replicas.scope():
            model = tiny.build_model(frozen_norms=True)
            engine = Engine(tiny.config(), model, two_replicas)
    finally:
        keras.config.set_dtype_policy("float32")
    before = tiny.weights_of(model)
    images, labels = tiny.examples()
    labels = np.eye(tiny.CLASSES, dtype=np.float32)[labels]
    if bad_replica is not None:
        # The loss is float32; its gradient goes through float16.
        labels[8 * bad_replica] *= 1e5
    step_once(engine, images[:16], labels[:16])
    good = bad_replica is None
    assert (tiny.worst_difference(before, tiny.weights_of(model)) > 0) == good
    assert engine.loss_scale.factor.numpy() == 2.0 ** (16 if good else 15)
    assert engine.optimizer.updates.numpy() == int(good)
    assert engine.first_bad_step.numpy() == -1
    for copy in engine.loss_scale.factor.values:
        assert copy.numpy() == engine.loss_scale.factor.numpy()


def test_float16_does_not_go_on_with_a_loss_that_is_not_finite(one_device):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        with one_device.scope():
            model = tiny.build_model()
            engine = Engine(tiny.config(), model, one_device)
    finally:
        keras.config.set_dtype_policy("float32")
    images, labels = tiny.examples()
    images[3] = 1e38
    step_once(engine, images[:16], labels[:16])
    assert engine.first_bad_step.numpy() == 1
    assert engine.optimizer.updates.numpy() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_bfloat16", 0.01), ("mixed_float16", 2e-3)]
)
def test_mixed_precision_trains_alike(
    one_replica, one_device, policy, tolerance
):
    keras.config.set_dtype_policy(policy)
    try:
        _, results = run(one_device)
    finally:
        keras.config.set_dtype_policy("float32")
    losses = [step["loss"] for step in results]
    expected = [step["loss"] for step in one_replica[1]]
    np.testing.assert_allclose(losses, expected, rtol=tolerance)
    assert losses != expected


@pytest.mark.large
@pytest.mark.parametrize("strategy", ["one_device", "two_replicas"])
def test_xla_computes_the_same(strategy, request):
    strategy = request.getfixturevalue(strategy)
    plain, _ = run(strategy)
    engine, _ = run(strategy, jit_compile=True)
    difference = tiny.worst_difference(everything(plain), everything(engine))
    assert 0 < difference < 1e-4


@pytest.mark.slow
def test_labels_may_be_shares_of_classes(one_replica, one_device):
    def one_hot(images, labels):
        return images, tf.one_hot(labels, tiny.CLASSES)

    def smooth(images, labels):
        return images, 0.9 * tf.one_hot(labels, tiny.CLASSES) + 0.01

    _, same = run(one_device, change=one_hot)
    assert [step["loss"] for step in same] == pytest.approx(
        [step["loss"] for step in one_replica[1]], rel=1e-5
    )
    _, other = run(one_device, change=smooth)
    assert other[-1]["loss"] > same[-1]["loss"] + 0.01


def test_replicas_drop_other_units(two_replicas):
    with two_replicas.scope():
        model = tiny.build_model(dropout=0.5)
        engine = Engine(tiny.config(), model, two_replicas)
    state = model.get_layer("head_dropout").seed_generator.state.value
    first, second = (copy.numpy() for copy in state.values)
    np.testing.assert_array_equal(first, second)
    engine.spread_seeds()
    np.testing.assert_array_equal(state.values[0].numpy(), first)
    assert state.values[1].numpy()[0] != first[0]
