import pytest
import tensorflow as tf


@pytest.fixture(scope="session")
def one_device():
    return tf.distribute.OneDeviceStrategy("/cpu:0")


@pytest.fixture(scope="session")
def two_replicas():
    """One for all tests: two over the same devices would share their keys."""
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    return tf.distribute.MirroredStrategy(devices[:2])
