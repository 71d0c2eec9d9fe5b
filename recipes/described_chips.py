"""Chips that are described instead of there, to trace and compile for."""

import collections

import numpy as np
import tensorflow as tf
from tensorflow.python.distribute.values import PerReplicaSpec
from tensorflow.python.tpu.tpu_system_metadata import TPUSystemMetadata

_HOST = "/job:localhost/replica:0/task:0/device:"
_Device = collections.namedtuple("_Device", "name device_type")


class _Resolver:
    """Resolves to the cores of a TPU that is not there."""

    task_type = task_id = tpu_hardware_feature = None

    def __init__(self, replicas):
        self.replicas = replicas

    def get_tpu_system_metadata(self):
        devices = [
            _Device(f"{_HOST}TPU:{i}", "TPU") for i in range(self.replicas)
        ]
        return TPUSystemMetadata(
            num_cores=self.replicas,
            num_hosts=1,
            num_of_cores_per_host=self.replicas,
            topology=None,
            devices=devices,
        )

    def master(self):
        return ""

    def cluster_spec(self):
        return None


def tpu_strategy(replicas):
    """Builds a `TPUStrategy` whose cores are this machine's logical CPUs.

    It traces functions as for a TPU, keeps a copy of each variable for each
    replica and distributes batches. It can't run what it traced.

    Args:
        replicas: Integer, at most the number of logical CPUs.

    Returns:
        A `tf.distribute.TPUStrategy`.
    """
    strategy = tf.distribute.TPUStrategy(_Resolver(replicas))
    strategy._enable_packed_variable_in_eager_mode = False
    extended = strategy.extended
    cores = [f"{_HOST}CPU:{i}" for i in range(replicas)]
    extended._tpu_devices = np.array([[core] for core in cores], dtype=object)
    extended._device_input_worker_devices = {cores[0]: cores}
    extended._host_input_worker_devices = {cores[0]: replicas * [cores[0]]}
    return strategy


def per_replica(strategy, shape, dtype):
    """Builds the spec of a tensor that each replica has one of."""
    spec = tf.TensorSpec(shape, dtype)
    return PerReplicaSpec(*[spec] * strategy.num_replicas_in_sync)
