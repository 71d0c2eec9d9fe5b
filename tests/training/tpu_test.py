"""Tests a run with a `TPUStrategy`, without a TPU.

Logical CPUs replace the cores: functions are traced as for a TPU, and the code
between them runs.
"""

import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf import data
from convmixer_tf.layers._fast import tensorflow_cpu
from convmixer_tf.training import step
from convmixer_tf.training import trainer
from convmixer_tf.training.classifier import training_inputs
from convmixer_tf.training.inputs import distribute
from convmixer_tf.training.strategy import is_chief
from convmixer_tf.training.strategy import on_replicas
from recipes import described_chips
from tests.training import tiny

CONFIG = tiny.config(
    accumulation_steps=2, batch_size=32, ema_decay=0.9, clip_norm=0.3
)
# Host operations: a TPU would have to wait for them or rejects them.
HOST_OPERATIONS = {"EagerPyFunc", "PyFunc", "PrintV2", "Assert"}


def trace(function, *arguments):
    """Traces a function and returns its operations; a TPU must support them."""
    graph = function.get_concrete_function(*arguments).graph
    operations = graph.get_operations()
    assert any(op.type == "TPUReplicateMetadata" for op in operations)
    assert not HOST_OPERATIONS & {op.type for op in operations}
    for op in operations:
        for output in op.outputs:
            assert output.shape.is_fully_defined(), op
    return operations


def trace_instead(strategy, function):
    """Replaces `on_replicas`, whose result can't be run."""

    def call():
        trace(on_replicas(strategy, function))
        TRACED.append(function.__name__)
        return tf.constant(0)

    return call


TRACED = []


@pytest.fixture(scope="module")
def strategy():
    return described_chips.tpu_strategy(2)


@pytest.fixture(scope="module")
def run(strategy, tmp_path_factory):
    """A run, built like in `train`."""
    directory = tmp_path_factory.mktemp("tpu")
    with pytest.MonkeyPatch.context() as patch:
        # Fast CPU operations must not be used for a TPU.
        patch.setattr(tensorflow_cpu, "only_cpus", lambda: False)
        for module in (step, trainer):
            patch.setattr(module, "on_replicas", trace_instead)
        yield trainer.Run(
            *(CONFIG, lambda: tiny.build_model(dropout=0.1)),
            *(directory, strategy, None, None),
        )


@pytest.fixture(scope="module")
def batch(strategy):
    return (
        described_chips.per_replica(strategy, (8, 16, 16, 3), "float32"),
        described_chips.per_replica(strategy, (8,), "int64"),
    )


def test_a_run_begins(run):
    assert is_chief(run.strategy)
    assert TRACED == ["add", "spread"]


def test_an_update_is_traced(run, batch):
    trace(tf.function(run.engine._accumulate), batch)
    operations = trace(tf.function(run.engine._update), batch)
    assert any(op.type == "CrossReplicaSum" for op in operations)


@pytest.mark.slow
def test_several_updates_are_one_loop(run):
    batches = tiny.train_batches(CONFIG.batch_size // 2)
    data = distribute(run.strategy, lambda context: batches(0, 0, context))
    updates = run.engine._updates.get_concrete_function(iter(data), 3)
    operations = [op.type for op in updates.graph.get_operations()]
    assert operations.count("While") == 1


@pytest.mark.large
def test_an_update_by_muon_is_traced(strategy, batch):
    with strategy.scope():
        config = tiny.config(optimizer="muon", sync_batch_norm=True)
        engine = step.Engine(config, tiny.build_model(), strategy)
    trace(tf.function(engine._update), batch)


def test_an_evaluation_is_traced(run, batch):
    weights = described_chips.per_replica(run.strategy, (8,), "float32")
    trace(run.evaluator._judge, (*batch, weights))
    trace(run.engine.merge_batch_norms)


def test_a_checkpoint_is_saved_and_restored_on_all_replicas(run):
    variables = run.engine.model.trainable_variables[0].value.values
    before = variables[1].numpy()
    run.store.save(run.engine.state(), "step_1", {})
    for variable in variables:
        variable.assign(0 * before)
    assert run.store.restore(run.engine.state()) == {}
    for variable in variables:
        np.testing.assert_array_equal(variable.numpy(), before)


def test_the_average_is_swapped_on_all_replicas(run):
    target, mean = run.engine.average.targets[0], run.engine.average.means[0]
    mean.assign(tf.ones_like(mean))
    before = target.numpy()
    with run.averaged():
        for copy in target.values:
            assert np.all(copy.numpy() == 1)
    for copy in target.values:
        np.testing.assert_array_equal(copy.numpy(), before)


@pytest.mark.large
def test_batches_have_static_shapes(run):
    digits = data.open_dataset("digits", "test")
    load = training_inputs(CONFIG, digits, data.Augmentation(), 16)
    batches = distribute(
        run.strategy,
        lambda context: load(0, 0, context),
        CONFIG.batch_size // 4,
    )
    for spec in tf.nest.flatten(batches.element_spec, expand_composites=True):
        assert spec.shape.is_fully_defined()
        assert spec.shape[0] == 8
