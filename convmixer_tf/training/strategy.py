"""Selects the devices and the precision of training."""

import json
import os
import socket
import urllib.parse

import keras
import tensorflow as tf
from absl import logging

STRATEGIES = ("auto", "one", "mirrored", "multiworker", "tpu")
_SECONDS_TO_ANSWER = 10  # for a Cloud TPU


def make_strategy(
    name: str = "auto",
    *,
    tpu: str | None = None,
    zone: str | None = None,
    project: str | None = None,
    deterministic: bool = False,
) -> tf.distribute.Strategy:
    """Selects a distribution strategy from the hardware and `TF_CONFIG`.

    Call it before any other TensorFlow operation: several workers can only be
    connected at the start of a process.

    Args:
        name: `"one"` uses the first GPU, or else the CPU. `"mirrored"` uses all
            GPUs of this machine, or else all logical CPUs. `"multiworker"` uses
            all machines in `TF_CONFIG`. `"tpu"` uses the TPU of this machine,
            or the one named by `tpu`. `"auto"` is `"tpu"` if `tpu` is given,
            else `"multiworker"` if `TF_CONFIG` lists several workers, else
            `"tpu"` or `"mirrored"` if there is a TPU or several GPUs, else
            `"one"`.
        tpu: Name or address of a Cloud TPU, such as a pod of several machines.
            This process controls all of them.
        zone: The TPU's zone. Defaults to this machine's.
        project: The TPU's project. Defaults to this machine's.
        deterministic: Boolean, whether runs on a GPU are reproducible to the
            bit, which is slower. It applies to the rest of this process and
            needs XLA: without XLA, TensorFlow raises an error because its
            depthwise convolution gradient is not deterministic.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        ValueError: If the strategy is unknown, if `"multiworker"` has no
            `TF_CONFIG`, if `"tpu"` has no TPU or can't reach it, or if a TPU is
            named for another strategy.
        RuntimeError: If it is too late to connect several workers.
        ImportError: If `tpu` is a name and Google's packages are missing.
    """
    check_backend()
    if name not in STRATEGIES:
        raise ValueError(
            f"Argument `strategy` must be one of {', '.join(STRATEGIES)}. "
            f"Received: strategy={name!r}"
        )
    in_vain = name not in ("auto", "tpu") if tpu else zone or project
    if in_vain:
        raise ValueError(
            'Argument `tpu` needs strategy="tpu" or "auto", and `zone` and '
            f"`project` need `tpu`. Received: strategy={name!r}, tpu={tpu!r}, "
            f"zone={zone!r}, project={project!r}"
        )
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    if name == "auto":
        name = "tpu" if tpu else _choose()
    strategy = {
        "one": _one,
        "mirrored": _mirrored,
        "multiworker": _multiworker,
        "tpu": lambda: _tpu(tpu, zone, project),
    }[name]()
    replicas = strategy.num_replicas_in_sync
    if replicas > 1:
        logging.info(
            "Strategy %s: %d replicas, this worker's on %s.",
            *(name, replicas, ", ".join(strategy.extended.worker_devices)),
        )
    return strategy


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process writes files.

    A `TPUStrategy` has a single process, even on a TPU of several machines.
    """
    resolver = strategy.cluster_resolver
    if isinstance(strategy, tf.distribute.TPUStrategy) or resolver is None:
        return True
    if not resolver.task_type:
        return True
    return resolver.task_type == "chief" or (
        resolver.task_type == "worker"
        and resolver.task_id == 0
        and "chief" not in resolver.cluster_spec().as_dict()
    )


def resolve_precision(precision):
    """Selects the dtype policy for a precision.

    Args:
        precision: One of `TrainConfig.precision`.

    Returns:
        The name of a Keras dtype policy: `"float32"`, `"mixed_bfloat16"` or
        `"mixed_float16"`.
    """
    if precision == "auto":
        precision = _native_precision()
    return precision if precision == "float32" else f"mixed_{precision}"


def resolve_jit_compile(jit_compile, strategy, sync_batch_norm=False):
    """Returns whether to compile the replicas' functions with XLA.

    Args:
        jit_compile: As in `TrainConfig`.
        strategy: A `tf.distribute.Strategy`.
        sync_batch_norm: As in `TrainConfig`.

    Returns:
        Boolean. `False` for a TPU, which always uses XLA.
    """
    devices = strategy.extended.worker_devices
    if jit_compile is not None:
        return jit_compile and not any("TPU:" in device for device in devices)
    waits = sync_batch_norm and strategy.num_replicas_in_sync > 1
    return all("GPU:" in device for device in devices) and not waits


def _native_precision():
    if tf.config.list_logical_devices("TPU"):
        return "bfloat16"
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "float32"
    capabilities = [
        tf.config.experimental.get_device_details(gpu).get(
            "compute_capability", (0, 0)
        )
        for gpu in gpus
    ]
    if min(capabilities) >= (8, 0):  # Ampere
        return "bfloat16"
    # Tensor cores came with Volta.
    return "float16" if min(capabilities) >= (7, 0) else "float32"


def _choose():
    if len(_workers()) > 1:
        return "multiworker"
    if tf.config.list_physical_devices("TPU"):
        return "tpu"
    several = len(tf.config.list_physical_devices("GPU")) > 1
    return "mirrored" if several else "one"


def _workers():
    cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    return cluster.get("chief", []) + cluster.get("worker", [])


def _one():
    gpus = tf.config.list_logical_devices("GPU")
    return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")


def _mirrored():
    devices = tf.config.list_logical_devices("GPU")
    devices = devices or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _multiworker():
    if not _workers():
        raise ValueError(
            'strategy="multiworker" needs the environment variable TF_CONFIG, '
            "with the list of workers and the index of this worker. "
            f"Received: TF_CONFIG={os.environ.get('TF_CONFIG')!r}"
        )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise RuntimeError(
            "Several workers can only be connected before any other TensorFlow "
            "operation. Call `make_strategy` at the start of the process, "
            f"before data is opened, and pass its result on. {error}"
        ) from error


def _tpu(tpu, zone, project):
    if not tpu and not tf.config.list_physical_devices("TPU"):
        raise ValueError(
            'strategy="tpu" needs a TPU in this machine and, instead of '
            'tensorflow, pip install tensorflow-tpu==2.20.0 "libtpu<0.0.30". '
            "For a Cloud TPU, pass its name as `tpu` (`--tpu`). Received: "
            f"devices={[d.name for d in tf.config.list_physical_devices()]}"
        )
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            tpu or "local", zone, project
        )
        if tpu:  # TensorFlow would wait for its answer without an end.
            address = urllib.parse.urlsplit(resolver.master())
            socket.create_connection(
                (address.hostname, address.port), _SECONDS_TO_ANSWER
            ).close()
    except OSError as error:
        raise ValueError(
            "The Cloud TPU named by `tpu` (`--tpu`) can't be reached. Start it "
            "and run this process where it is reachable. Outside Google's "
            "cloud, pass `zone` and `project`, too. Received: "
            f"tpu={tpu!r}, zone={zone!r}, project={project!r}. {error}"
        ) from error
    except RuntimeError as error:
        if "Google API client" not in str(error):
            raise
        # TensorFlow recommends cloud-tpu-client, which replaces protobuf by a
        # version that is too old for TensorFlow.
        raise ImportError(
            "To find a Cloud TPU by its name, run `pip install "
            "google-api-python-client oauth2client`."
        ) from error
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)


def check_backend():
    """Raises `RuntimeError` unless Keras uses TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "convmixer_tf.training distributes with tf.distribute and needs "
            "Keras' TensorFlow backend: set KERAS_BACKEND=tensorflow. "
            f"Received: backend={keras.backend.backend()!r}"
        )


def on_replicas(strategy, function):
    """Compiles a function that runs on all replicas.

    Args:
        strategy: A `tf.distribute.Strategy`.
        function: Function without arguments.

    Returns:
        A `tf.function`, which returns the replicas' results.
    """

    # TensorFlow names a part of the graph after the function. A `TPUStrategy`
    # rejects the name `<lambda>`.
    def run():
        return strategy.run(function)

    return tf.function(run)
