"""The trainer's functions can be traced under a `TPUStrategy`.

There is no TPU: logical CPUs take the place of its cores. That is enough to
trace a function for a TPU, not to run it.
"""

import pytest

from tests.helpers import run_python

_CODE = """
import collections
import contextlib
import dataclasses

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.distribute.values import PerReplicaSpec
from tensorflow.python.tpu.tpu_system_metadata import TPUSystemMetadata

from convmixer_tf.training.evaluation import Evaluator
from convmixer_tf.training import step
from convmixer_tf.training import strategy as strategies
from convmixer_tf.training import trainer
from tests.training import tiny

REPLICAS = 2
PREFIX = "/job:localhost/replica:0/task:0/device:"
Device = collections.namedtuple("Device", "name device_type")


class Resolver:
    task_type = task_id = tpu_hardware_feature = None
    def get_tpu_system_metadata(self):
        return TPUSystemMetadata(
            num_cores=REPLICAS,
            num_hosts=1,
            num_of_cores_per_host=REPLICAS,
            topology=None,
            devices=[
                Device(f"{PREFIX}TPU:{i}", "TPU") for i in range(REPLICAS)
            ],
        )

    def master(self):
        return ""

    def cluster_spec(self):
        return None


cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, REPLICAS * [tf.config.LogicalDeviceConfiguration()]
)
strategy = tf.distribute.TPUStrategy(Resolver())
strategy.extended._tpu_devices = np.array(
    [[f"{PREFIX}CPU:{i}"] for i in range(REPLICAS)], dtype=object
)

def per_replica(shape, dtype):
    return PerReplicaSpec(*REPLICAS * [tf.TensorSpec(shape, dtype)])


images = per_replica((8, 16, 16, 3), "float32")
labels = per_replica((8,), "int64")
weights = per_replica((8,), "float32")
config = tiny.config(
    accumulation_steps=2, batch_size=32, ema_decay=0.9, clip_norm=0.3
)
muon_config = dataclasses.replace(config, optimizer="muon")
keras.utils.set_random_seed(0)
with strategy.scope():
    model = tiny.build_model(dropout=0.1)
    engine = step.Engine(config, model, strategy)
    with_muon = step.Engine(muon_config, tiny.build_model(), strategy)
    evaluator = Evaluator(engine.model, strategy)
for name, function, arguments in (
    ("accumulate", engine._accumulate, [(images, labels)]),
    ("update", engine._update, [(images, labels)]),
    ("update by Muon", with_muon._update, [(images, labels)]),
    ("evaluate", evaluator._judge, [(images, labels, weights)]),
    ("merge", engine.merge_batch_norms, []),
):
    graph = function.get_concrete_function(*arguments).graph
    print(name, len(graph.get_operations()) > 0)
for module, call in (
    (step, engine.spread_seeds),
    (trainer, lambda: trainer._sum_over_replicas(strategy, 3)),
):
    compiled = module.on_replicas

    def trace(strategy, function, compiled=compiled):
        compiled(strategy, function).get_concrete_function()
        print("traced", function.__name__)
        raise SystemExit  # There is no TPU to run it.

    module.on_replicas = trace
    with contextlib.suppress(SystemExit):
        call()
"""


@pytest.mark.large
def test_every_function_of_the_trainer_can_be_traced():
    printed = run_python(_CODE)
    assert printed.split("\n") == [
        "accumulate True",
        "update True",
        "update by Muon True",
        "evaluate True",
        "merge True",
        "traced spread",
        "traced add",
        "",
    ]
