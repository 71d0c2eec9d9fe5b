"""Describes TPUs and GPUs, to trace and compile for them without hardware."""

import collections
import os
import types

# This must be set before libtpu is loaded. Otherwise libtpu would ask Google's
# cloud for its TPU, and lock out other processes.
os.environ |= {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

import numpy as np
import tensorflow as tf
from tensorflow.python.distribute.values import PerReplicaSpec
from tensorflow.python.tpu.tpu_system_metadata import TPUSystemMetadata

_HOST = "/job:localhost/replica:0/task:0/device:"
_Device = collections.namedtuple("_Device", "name device_type")


def tpu_strategy(replicas):
    """Builds a `TPUStrategy` whose cores are this machine's logical CPUs.

    It traces functions as for a TPU, keeps a copy of each variable for each
    replica and distributes batches. It can't run the traced functions.

    Args:
        replicas: Integer, at most the number of logical CPUs.

    Returns:
        A `tf.distribute.TPUStrategy`.
    """
    metadata = TPUSystemMetadata(
        num_cores=replicas,
        num_hosts=1,
        num_of_cores_per_host=replicas,
        topology=None,
        devices=[_Device(f"{_HOST}TPU:{i}", "TPU") for i in range(replicas)],
    )
    resolver = types.SimpleNamespace(
        get_tpu_system_metadata=lambda: metadata,
        master=str,
        cluster_spec=lambda: None,
        **dict.fromkeys(("task_type", "task_id", "tpu_hardware_feature")),
    )
    strategy = tf.distribute.TPUStrategy(resolver)
    strategy._enable_packed_variable_in_eager_mode = False
    extended = strategy.extended
    cores = [f"{_HOST}CPU:{i}" for i in range(replicas)]
    extended._tpu_devices = np.array([[core] for core in cores], dtype=object)
    extended._device_input_worker_devices = {cores[0]: cores}
    extended._host_input_worker_devices = {cores[0]: replicas * [cores[0]]}
    return strategy


def per_replica(strategy, shape, dtype):
    """Builds the spec of a tensor of which each replica has one."""
    spec = tf.TensorSpec(shape, dtype)
    return PerReplicaSpec(*[spec] * strategy.num_replicas_in_sync)


class Program:
    """The program of one replica of a `TPUStrategy`, or of one GPU, lowered.

    It is a pure function. Variables are arguments, and their new values are
    results.

    Args:
        concrete: A concrete function that calls `strategy.run`.
        platform: `"TPU"` or `"GPU"`.

    Attributes:
        resources: Handles of the variables of the first replica.
        stablehlo: Bytes, the lowered function.

    Raises:
        Exception: TensorFlow's, if the platform can't run the function.
    """

    def __init__(self, concrete, platform="TPU"):
        self._operations = concrete.graph.get_operations()
        # If each replica has a copy of an input, the first represents all.
        first = {
            op.inputs[0].name
            for op in self._operations
            if op.type == "TPUReplicatedInput"
        } or {x.name for x in concrete.graph.inputs}
        captured = {
            inner.name: outer for outer, inner in concrete.graph.captures
        }
        inputs = [x for x in concrete.graph.inputs if x.name in first]
        self._arguments = [x for x in inputs if x.name not in captured]
        self._constants = {
            x.name: captured[x.name].numpy()
            for x in inputs
            if x.name in captured and x.dtype != tf.resource
        }
        self._variables = [x for x in inputs if x.dtype == tf.resource]
        self._outputs = concrete.graph.outputs
        self.resources = [captured[x.name] for x in self._variables]
        data = [x._handle_data.shape_and_type[0] for x in self.resources]
        specs = [tf.TensorSpec(x.shape, x.dtype) for x in self._arguments]
        specs += [tf.TensorSpec(x.shape, x.dtype) for x in data]
        function = tf.function(self._run, jit_compile=True, autograph=False)
        lower = function.experimental_get_compiler_ir(*specs)
        self.stablehlo = lower(
            stage="stablehlo_serialized", platform_name=platform
        )

    def _run(self, *values):
        names = [x.name for x in self._arguments + self._variables]
        tensors = dict(zip(names, values, strict=True))
        tensors |= {k: tf.constant(v) for k, v in self._constants.items()}
        handles = {name: name for name in names}
        for op in self._operations:  # In the order of tracing.
            _repeat(op, tensors, handles)
        outputs = [tensors[x.name] for x in self._outputs]
        return outputs, [tensors[x.name] for x in self._variables]


def _repeat(op, tensors, handles):
    """Adds an operation to the graph, with values instead of variables."""
    names = [x.name for x in op.inputs]
    values = [tensors.get(name) for name in names]
    if op.type in _OF_THE_STRATEGY:
        if "Replicated" in op.type:
            for output in op.outputs:
                tensors[output.name] = values[0]
                handles[output.name] = handles.get(names[0])
    elif names and op.inputs[0].dtype == tf.resource:
        variable = handles[names[0]]
        value = tensors[variable]
        if op.type in _ASSIGN:
            tensors[variable] = _ASSIGN[op.type](value, values[1])
        elif op.type == "ReadVariableOp":
            tensors[op.outputs[0].name] = value
        else:
            raise NotImplementedError(f"{op.type} of a variable")
    else:
        graph = tf.compat.v1.get_default_graph()
        attributes = {
            key: value
            for key, value in op.node_def.attr.items()
            if not key.startswith("_")
        }
        for value in attributes.values():
            if value.HasField("func"):
                function = op.graph._get_function(value.func.name)
                graph._add_function_recursive(function)
        dtypes = [x.dtype for x in op.outputs]
        new = graph._create_op_internal(
            op.type, values, dtypes, attrs=attributes
        )
        for old, output in zip(op.outputs, new.outputs, strict=True):
            tensors[old.name] = output


_OF_THE_STRATEGY = {
    *("Placeholder", "NoOp", "TPUReplicateMetadata", "TPUCompilationResult"),
    *("TPUReplicatedInput", "TPUReplicatedOutput"),
}
_ASSIGN = {
    "AssignVariableOp": lambda old, new: new,
    "AssignAddVariableOp": tf.add,
    "AssignSubVariableOp": tf.subtract,
}


def compile_program(program, devices):
    """Compiles a program for devices, which may be described only.

    Args:
        program: A `Program`.
        devices: List of JAX devices, one for each replica.

    Returns:
        JAX's executable. The new values of variables reuse the memory of the
        old ones.

    Raises:
        Exception: JAX's, if the program does not fit.
    """
    from jax._src import compiler
    from jax._src.interpreters import mlir
    from jax._src.lib import xla_client
    from jax._src.lib.mlir import ir

    with mlir.make_ir_context():
        module = ir.Module.parse(program.stablehlo)
        (main,) = (
            op
            for op in module.body.operations
            if ir.StringAttr(op.attributes["sym_name"]).value == "main"
        )
        kind = ir.FunctionType(
            ir.TypeAttr(main.attributes["function_type"]).value
        )
        shift = len(kind.results) - len(kind.inputs)
        first = len(kind.inputs) - len(program.resources)
        # The new value of a variable reuses the memory of the old one.
        donated = [
            i >= first and x == kind.results[i + shift]
            for i, x in enumerate(kind.inputs)
        ]
        integer = ir.IntegerType.get_signless(32)
        attributes = [
            {"tf.aliasing_output": ir.IntegerAttr.get(integer, i + shift)}
            if donate
            else {}
            for i, donate in enumerate(donated)
        ]
        main.attributes["arg_attrs"] = ir.ArrayAttr.get(
            list(map(ir.DictAttr.get, attributes))
        )
        options = compiler.get_compile_options(
            num_replicas=len(devices),
            num_partitions=1,
            device_assignment=np.array([[device.id] for device in devices]),
            env_options_overrides=_OPTIONS.get(devices[0].platform),
        )
        client = devices[0].client
        on_cpu = devices[0].platform == "cpu"
        return (client.compile_and_load if on_cpu else client.compile)(
            module,
            executable_devices=xla_client.DeviceList(tuple(devices)),
            compile_options=options,
        )


# Autotuning would need the GPU.
_OPTIONS = {
    "gpu": {
        "xla_gpu_autotune_level": "0",
        "xla_gpu_enable_triton_gemm": "False",
    }
}
# NVIDIA's data sheets and CUDA's tables for compute capability 9.0.
_GPU = """
platform_name: "CUDA"
device_description_str: "NVIDIA {name}"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 13 }}
gpu_device_info {{
  cuda_compute_capability {{ major: 9 }}
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  memory_bandwidth: {bytes_per_second:.0f}
  device_memory_size: {memory:.0f}
  l2_cache_size: 52428800
  threads_per_block_limit: 1024
  threads_per_warp: 32
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
}}
"""


def described_gpu(name, memory, bytes_per_second):
    """Describes an NVIDIA GPU of compute capability 9.0.

    Args:
        name: String, such as `"H200"`.
        memory: Float, in bytes.
        bytes_per_second: Float, the bandwidth of its memory.

    Returns:
        List with one JAX device.
    """
    return _describe(
        platform="cuda",
        topology="1x1x1",
        target_config=_GPU.format(
            name=name, memory=memory, bytes_per_second=bytes_per_second
        ),
    )


def described_devices(topology):
    """Describes TPUs that libtpu knows.

    Args:
        topology: String, such as `"v5e:2x2"`.

    Returns:
        List of JAX devices.
    """
    return _describe(platform="tpu", topology_name=topology)


def _describe(**what):
    import jax
    from jax.experimental import topologies

    jax.config.update("jax_platforms", "cpu")
    return topologies.get_topology_desc(**what).devices
