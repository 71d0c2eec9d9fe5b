"""Programs for a GPU that is only described: compiled, and counted.

`compile_for_gpu.py` sets the environment that this needs before it imports it:
Keras on JAX, JAX on the CPU, no autotuning, which would ask a GPU.
"""

import collections
import contextlib
import dataclasses
import re
import time

import jax
import jax.numpy as jnp
import keras
from jax.experimental import topologies
from speed.cases import Case
from speed.costs import H200
from speed.costs import MODELS
from speed.keras_steps import build_model

from convmixer_tf.layers import set_depthwise
from convmixer_tf.layers.acceleration import plain_operations

KERAS = "keras"
DEPTHS = (2, 4)
# NVIDIA's data sheet and CUDA's tables for compute capability 9.0.
DESCRIPTION = """
platform_name: "CUDA"
device_description_str: "NVIDIA H200"
dnn_version_info { major: 9 minor: 12 }
runtime_version { major: 13 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  memory_bandwidth: 4800000000000
  device_memory_size: 150000000000
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
}
"""
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4}
FREE = {"parameter", "constant", "bitcast", "tuple", "get-tuple-element"}


def described_mesh():
    """Describes a machine with one H200 to XLA, and to our layers.

    Returns:
        A `jax.sharding.Mesh` to compile for.
    """
    jax.default_backend = lambda: "gpu"  # Our layers ask it where they are.
    machine = topologies.get_topology_desc(
        platform="cuda", target_config=DESCRIPTION, topology="1x1x1"
    )
    return topologies.make_mesh(machine, (1,), ("devices",))


def versions():
    """Names the device, and what compiles for it."""
    versions = {"jax": jax.__version__, "keras": keras.__version__}
    return {"device": H200.device, "versions": versions}


def kernels(text):
    """Lists what an optimised program runs, one after the other.

    Args:
        text: String, XLA's `HloModule` as text.

    Returns:
        List of pairs: what it is, such as `"fusion"` or the custom call's
        target, and the bytes of its inputs and outputs.
    """
    pattern = r" *(?:ROOT )?%([\w.-]+) = (.*?) ([\w-]+)\((.*?)\)(.*)"
    sizes, found = {}, []
    for line in text[text.index("\nENTRY") :].splitlines():
        parts = re.match(pattern, line)
        if not parts:
            continue
        name, shape, kind, inputs, rest = parts.groups()
        sizes[name] = _bytes(shape)
        if kind in FREE:
            continue
        sources = re.findall(r"%([\w.-]+)", inputs)
        moved = sizes[name] + sum(sizes.get(source, 0) for source in sources)
        target = re.search(r'custom_call_target="([^"]+)"', rest)
        found.append((target[1] if target else kind, moved))
    return found


def _bytes(shape):
    total = 0
    for dtype, sizes in re.findall(r"(\w+)\[([\d,]*)\]", shape):
        values = 1
        for size in filter(None, sizes.split(",")):
            values *= int(size)
        total += values * BYTES.get(dtype, 0)
    return total


def steps(network):
    """Gives a network's forward pass, and its training step by descent."""

    def infer(trained, others, images):
        return network.stateless_call(trained, others, images, training=False)[
            0
        ]

    def train(trained, others, images, labels):
        def loss(trained):
            logits, moved = network.stateless_call(
                trained, others, images, training=True
            )
            losses = keras.ops.sparse_categorical_crossentropy(
                labels, logits, from_logits=True
            )
            return jnp.mean(losses), moved

        (value, moved), slopes = jax.value_and_grad(loss, has_aux=True)(trained)
        trained = [w - 1e-3 * s for w, s in zip(trained, slopes, strict=True)]
        return value, trained, moved

    return {"infer": infer, "train": train}


def compile_step(case, depth, batch_size, mesh):
    """Compiles a step.

    Args:
        case: A `speed.cases.Case`.
        depth: Integer, how many blocks in place of the model's own.
        batch_size: Integer, images.
        mesh: The `jax.sharding.Mesh` to compile for.

    Returns:
        A `jax.stages.Compiled`.
    """
    keras.backend.clear_session()
    network = build_model(
        case, dataclasses.replace(MODELS[case.model], depth=depth)
    )
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def like(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=everywhere)

    arguments = [
        [like(v.shape, v.dtype) for v in variables]
        for variables in (
            network.trainable_variables,
            network.non_trainable_variables,
        )
    ]
    size = MODELS[case.model].image_size
    arguments.append(like((batch_size, size, size, 3), "float32"))
    if case.step == "train":
        arguments.append(like((batch_size,), "int32"))
    device = jax.sharding.AbstractDevice(
        device_kind=H200.device, num_cores=None, platform="cuda"
    )
    described = jax.sharding.AbstractMesh(
        mesh.axis_sizes,
        mesh.axis_names,
        (jax.sharding.AxisType.Auto,),
        abstract_device=device,
    )
    with jax.sharding.use_abstract_mesh(described):
        traced = jax.jit(steps(network)[case.step]).trace(*arguments)
        return traced.lower(lowering_platforms=("cuda",)).compile()


def measure(name, step, form, batch_size, mesh):
    """Finds what a block costs.

    Args:
        name: A key of `MODELS`.
        step: `"infer"` or `"train"`.
        form: Words for `set_depthwise`, or `KERAS`.
        batch_size: Integer, images.
        mesh: The `jax.sharding.Mesh` to compile for.

    Returns:
        Dictionary, ready for JSON. A map is what a block takes or gives, of
        all images, in bfloat16; maps are counted as often as they are read or
        written.
    """
    model, start = MODELS[name], time.perf_counter()
    case = Case(name, step, "bfloat16")
    own = form == KERAS
    set_depthwise(*([] if own else form.split(",")))
    map_bytes = (model.image_size // model.patch_size) ** 2 * model.dim
    map_bytes *= 2 * batch_size
    counts, maps, kept = collections.Counter(), collections.Counter(), 0
    for depth, sign in zip(DEPTHS, (-1, 1), strict=True):
        share = sign / (DEPTHS[1] - DEPTHS[0])
        with plain_operations() if own else contextlib.nullcontext():
            compiled = compile_step(case, depth, batch_size, mesh)
        kept += share * compiled.memory_analysis().temp_size_in_bytes
        for kind, moved in kernels(compiled.as_text()):
            counts[kind] += share
            maps[kind] += share * moved / map_bytes
    total = sum(maps.values())
    return {
        "model": name,
        "step": step,
        "form": form,
        "batch_size": batch_size,
        "kernels_a_block": round(sum(counts.values()), 2),
        "maps_a_block": round(total, 2),
        "maps_by_kind": {k: round(n, 2) for k, n in maps.items() if n > 0.005},
        "milliseconds_at_copy_rate": 1e3 * total * map_bytes / H200.copy,
        "kept_maps_a_block": round(kept / map_bytes, 2),
        "seconds": time.perf_counter() - start,
    }
