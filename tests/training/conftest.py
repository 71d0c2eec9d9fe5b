import contextlib
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
import tensorflow as tf


def split_cpu(count=2):
    """Makes one CPU look like several devices, if it is not too late."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * count
    # If TensorFlow has started already, the fixture below says so.
    with contextlib.suppress(RuntimeError):
        tf.config.set_logical_device_configuration(cpu, parts)


split_cpu()


@pytest.fixture(scope="session")
def one_device():
    return tf.distribute.OneDeviceStrategy("/cpu:0")


@pytest.fixture(scope="session")
def two_replicas():
    """One for all tests: two over the same devices would share their keys."""
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    if len(devices) < 2:
        pytest.skip("TensorFlow started before its CPU could be split in two")
    return tf.distribute.MirroredStrategy(devices[:2])
