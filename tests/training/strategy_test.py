import json
from unittest import mock

import keras
import pytest
import tensorflow as tf
from absl import logging
from tensorflow.python.tpu.client import client as tpu_client

from convmixer_tf.training import make_strategy
from convmixer_tf.training import strategy as strategies
from convmixer_tf.training import train
from convmixer_tf.training.strategy import is_chief
from convmixer_tf.training.strategy import resolve_jit_compile
from convmixer_tf.training.strategy import resolve_precision
from tests.training import tiny


def pretend(monkeypatch, kind, count, capability=None):
    devices = [
        tf.config.PhysicalDevice(f"/physical_device:{kind}:{i}", kind)
        for i in range(count)
    ]
    monkeypatch.setattr(
        tf.config,
        "list_physical_devices",
        lambda wanted=None: devices if wanted in (None, kind) else [],
    )
    monkeypatch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda device: {"compute_capability": capability},
    )


def test_one_device_is_the_default_on_a_cpu(monkeypatch, caplog):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with caplog.at_level("INFO", logger=logging.get_absl_logger().name):
        strategy = make_strategy()
    assert caplog.records == []
    assert strategy.num_replicas_in_sync == 1
    assert strategy.extended.worker_devices[0].endswith("CPU:0")
    assert is_chief(strategy)


def test_mirrored_takes_all_logical_cpus(two_replicas):
    assert is_chief(two_replicas)
    count = len(tf.config.list_logical_devices("CPU"))
    assert make_strategy("mirrored").num_replicas_in_sync == count


@pytest.mark.parametrize(
    ("kind", "count", "workers", "expected"),
    [
        ("CPU", 1, 0, "one"),
        ("CPU", 1, 1, "one"),
        ("GPU", 1, 0, "one"),
        ("GPU", 2, 1, "mirrored"),
        ("GPU", 2, 2, "multiworker"),
        ("CPU", 1, 3, "multiworker"),
        ("TPU", 1, 0, "tpu"),
    ],
)
def test_auto_follows_the_hardware(monkeypatch, kind, count, workers, expected):
    hosts = [f"host{i}:1234" for i in range(workers)]
    cluster = {"cluster": {"worker": hosts}, "task": {}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster) if workers else "")
    pretend(monkeypatch, kind, count)
    assert strategies._choose() == expected


@pytest.mark.parametrize(
    ("kind", "capability", "expected"),
    [
        ("CPU", None, "float32"),
        ("GPU", (8, 0), "mixed_bfloat16"),
        ("GPU", (9, 0), "mixed_bfloat16"),
        ("GPU", (7, 5), "mixed_float16"),
        ("GPU", (6, 1), "float32"),
    ],
)
def test_auto_precision_follows_the_hardware(
    monkeypatch, kind, capability, expected
):
    pretend(monkeypatch, kind, 2, capability)
    assert resolve_precision("auto") == expected


def test_xla_is_the_default_on_gpus_only(one_device, two_replicas):
    gpus = mock.Mock(num_replicas_in_sync=2)
    gpus.extended.worker_devices = ("/device:GPU:0", "/device:GPU:1")
    assert resolve_jit_compile(None, gpus)
    assert not resolve_jit_compile(None, gpus, sync_batch_norm=True)
    assert not resolve_jit_compile(None, one_device)
    assert resolve_jit_compile(True, two_replicas)
    # A TPU compiles everything.
    gpus.extended.worker_devices = ("/device:TPU:0",)
    assert not resolve_jit_compile(True, gpus)


def test_precision_can_be_demanded():
    assert resolve_precision("float32") == "float32"
    assert resolve_precision("bfloat16") == "mixed_bfloat16"
    assert resolve_precision("float16") == "mixed_float16"


def test_an_unknown_strategy_is_an_error():
    with pytest.raises(ValueError, match="`strategy` must be one of auto, one"):
        make_strategy("horovod")


def test_multiworker_without_workers_is_an_error(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="needs the environment variable TF_C"):
        make_strategy("multiworker")


def test_workers_that_are_joined_too_late_are_an_error(monkeypatch):
    tf.constant(0)
    cluster = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}
    task = {"type": "worker", "index": 0}
    config = json.dumps({"cluster": cluster, "task": task})
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(RuntimeError, match="before data is opened, and pass"):
        make_strategy()


def test_tpu_without_tpu_is_an_error():
    with pytest.raises(ValueError, match="needs a TPU in this machine"):
        make_strategy("tpu")


def test_a_tpu_is_found_by_name_zone_and_project(monkeypatch):
    class FoundError(Exception):
        pass

    def resolve(*arguments):
        raise FoundError(*arguments)

    resolvers = tf.distribute.cluster_resolver
    monkeypatch.setattr(resolvers, "TPUClusterResolver", resolve)
    with pytest.raises(FoundError) as found:
        make_strategy(tpu="pod", zone="us-east5-a", project="lab")
    assert found.value.args == ("pod", "us-east5-a", "lab")


@pytest.mark.parametrize("name", ["pod", "grpc://127.0.0.1:1"])
def test_a_tpu_that_does_not_answer_is_an_error(monkeypatch, name):
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    with pytest.raises(ValueError, match="can't be reached"):
        make_strategy(tpu=name)


def test_a_tpu_by_name_needs_googles_packages(monkeypatch):
    monkeypatch.setattr(tpu_client, "_GOOGLE_API_CLIENT_INSTALLED", False)
    with pytest.raises(ImportError, match="run `pip install google-api-python"):
        make_strategy("tpu", tpu="pod", zone="us-east5-a", project="lab")


@pytest.mark.parametrize(
    "wrong", [{"name": "one", "tpu": "pod"}, {"zone": "us-east5-a"}]
)
def test_a_tpu_named_in_vain_is_an_error(wrong):
    with pytest.raises(ValueError, match='`tpu` needs strategy="tpu"'):
        make_strategy(**wrong)


def test_another_backend_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="set KERAS_BACKEND=tensorflow"):
        make_strategy("one")
    with pytest.raises(RuntimeError, match="set KERAS_BACKEND=tensorflow"):
        train(tiny.config(), None, None, None, tmp_path, None)
