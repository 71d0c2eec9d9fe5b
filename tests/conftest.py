"""Sets the seed, the log level and two logical devices for all tests."""

import gc
import importlib.util
import logging
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # There is no TPU to find.

import keras
import pytest

# For `pytest -m chips`, which needs a TPU compiler.
CHIPS = importlib.util.find_spec("libtpu") is not None

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    # MirroredStrategy needs a second device, created before any op.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * (4 if CHIPS else 2),
    )


@pytest.fixture(scope="session")
def one_device():
    return tf.distribute.OneDeviceStrategy("/cpu:0")


@pytest.fixture(scope="session")
def two_replicas():
    """One for all tests: two on the same devices would share keys."""
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    return tf.distribute.MirroredStrategy(devices[:2])


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def _restore_log_level():
    """Restores it, because scripts that run in this process set it."""
    loggers = logging.root, logging.getLogger("convmixer_tf.data")
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(autouse=True)
def _restore_keras_settings():
    policy = keras.config.dtype_policy()
    data_format = keras.config.image_data_format()
    yield
    keras.config.set_dtype_policy(policy)
    keras.config.set_image_data_format(data_format)


def pytest_collection_finish():
    """Freezes TensorFlow's objects: collecting them takes 20 % of the time.

    Keras calls the garbage collector whenever it quantizes a layer.
    """
    gc.collect()
    gc.freeze()
