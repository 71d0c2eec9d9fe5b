"""Compiles training for described TPUs and GPUs, without the hardware.

    python recipes/compile_for_chips.py --model 1024_20 --batch_sizes 64,128

For TPUs it needs an environment with TensorFlow for TPUs and JAX's compiler
for them; for GPUs, one with TensorFlow and `jax[cuda13]`. BUILD.md describes
both. Nothing is run. Memory, traffic and cycles are the compiler's figures for
the trainer's own update, on 4 TPU chips or one GPU, in bfloat16 with a running
mean of the weights. Time is the number of cycles divided by the clock rate that
the chip's peak implies. It does not include waiting for data, the host or other
chips. XLA estimates no cycles for GPUs.

Each combination is a row of the JSON file and is written when it is compiled.
Existing rows are not compiled again.
"""

import contextlib
import dataclasses
import json
import math
import os
import re
from unittest import mock

import described_chips
import keras
import tensorflow as tf
from absl import app
from absl import flags
from absl import logging

from convmixer_tf import ConvMixer768_32
from convmixer_tf import ConvMixer1024_20
from convmixer_tf import ConvMixer1536_20
from convmixer_tf.files import dump_json
from convmixer_tf.layers._fast.choice import plain_operations
from convmixer_tf.training import TrainConfig
from convmixer_tf.training.step import Engine

REPLICAS = 4
IMAGES = 1_281_167  # ImageNet's training images.
MODELS = {  # Each model and the number of epochs that the authors trained it.
    "1536_20": (ConvMixer1536_20, 150),
    "768_32": (ConvMixer768_32, 300),
    "1024_20": (ConvMixer1024_20, 150),
}


@dataclasses.dataclass(frozen=True)
class Chip:
    """Data of a chip from its maker; for TPUs, libtpu's name of 4 chips."""

    gibibytes: float
    teraflops: float  # In bfloat16.
    topology: str | None = None
    multipliers: int = 0  # Multiply-accumulate units.
    gigabytes_per_second: int = 0

    def devices(self, name):
        """Returns JAX's described devices: 4 TPU chips, or one GPU."""
        if self.topology:
            return described_chips.described_devices(self.topology)[:REPLICAS]
        return described_chips.described_gpu(
            name, self.gibibytes * 2**30, self.gigabytes_per_second * 1e9
        )


CHIPS = {
    "v5e": Chip(16, 197, "v5e:2x2", 4 * 128**2),
    "v5p": Chip(95, 459, "v5p:2x2x1", 8 * 128**2),
    "v6e": Chip(32, 918, "v6e:2x2", 4 * 256**2),
    "H100": Chip(79, 989, gigabytes_per_second=3350),
    "H200": Chip(141, 989, gigabytes_per_second=4800),
}

_MODEL = flags.DEFINE_enum("model", "1024_20", MODELS, "Which ConvMixer.")
_CHIPS = flags.DEFINE_list(
    "chips", ["v5e"], f"One or more of {', '.join(CHIPS)}."
)
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["64"], "Images per chip.")
_REMAT = flags.DEFINE_bool("remat", False, "Recompute activations.")
_PLAIN = flags.DEFINE_bool("plain", False, "Use Keras' own operations only.")
_OUTPUT = flags.DEFINE_string(
    "output", "compiled_for_tpu.json", "JSON file to write."
)


def main(argv):
    """Compiles each combination and writes its row."""
    del argv
    logging.set_verbosity(logging.INFO)
    if len({bool(CHIPS[name].topology) for name in _CHIPS.value}) > 1:
        raise app.UsageError("Compile for TPUs and for GPUs separately.")
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, REPLICAS * [tf.config.LogicalDeviceConfiguration()]
    )
    strategy = (
        described_chips.tpu_strategy(REPLICAS)
        if CHIPS[_CHIPS.value[0]].topology
        else tf.distribute.OneDeviceStrategy("/cpu:0")
    )
    keras.config.set_dtype_policy("mixed_bfloat16")
    build, epochs = MODELS[_MODEL.value]
    with strategy.scope():
        model = build(
            weights=None, classifier_activation=None, remat=_REMAT.value
        )
    for batch_size in map(int, _BATCH_SIZES.value):
        keys = [
            {
                "model": _MODEL.value,
                "chip": name,
                "images_per_chip": batch_size,
                "remat": _REMAT.value,
                "plain": _PLAIN.value,
            }
            for name in _CHIPS.value
        ]
        keys = [x for x in keys if not any(row | x == row for row in read())]
        if not keys:
            continue
        with plain_operations() if _PLAIN.value else contextlib.nullcontext():
            program = lower_update(strategy, model, batch_size)
        for key in keys:
            row = key | measure(program, key["chip"], batch_size, epochs)
            write(row)
            logging.info("%s", row)


def lower_update(strategy, model, batch_size):
    """Lowers one update of a model's weights, for TPUs or for a GPU."""
    tpu = isinstance(strategy, tf.distribute.TPUStrategy)
    config = TrainConfig(
        batch_size=batch_size * strategy.num_replicas_in_sync,
        ema_decay=0.9999,
        jit_compile=not tpu,
    )
    with strategy.scope():
        engine = Engine(config, model, strategy)
    parts = [  # Images, and labels as fractions of classes.
        ((batch_size, *model.input_shape[1:]), "uint8"),
        ((batch_size, model.output_shape[-1]), "float32"),
    ]
    if tpu:
        update = tf.function(engine._update)
        batch = [described_chips.per_replica(strategy, *x) for x in parts]
    else:
        update, batch = engine._update, [tf.TensorSpec(*x) for x in parts]
    # Otherwise the layers would choose operations for this machine's CPU.
    with mock.patch(
        "convmixer_tf.layers._fast.tensorflow_cpu.only_cpus", return_value=False
    ):
        update = update.get_concrete_function(tuple(batch))
    return described_chips.Program(update, "TPU" if tpu else "GPU")


def measure(program, name, batch_size, epochs):
    """Compiles a program and returns the compiler's figures."""
    chip = CHIPS[name]
    try:
        compiled = described_chips.compile_program(program, chip.devices(name))
    except Exception as error:  # XLA's error has no public class.
        used = re.search(r"Used ([\d.]+)G of", str(error))
        if not used:
            raise
        return {"fits": False, "gibibytes": float(used[1])}
    text = compiled.hlo_modules()[0].to_string()
    memory = compiled.get_compiled_memory_stats().peak_memory_in_bytes / 2**30
    row = {"fits": memory < chip.gibibytes, "gibibytes": memory}
    if not chip.topology:
        moved = bytes_of_kernels(text)
        row |= {"gigabytes_moved": sum(moved) / 1e9, "kernels": len(moved)}
        return row
    costs = compiled.cost_analysis()
    # The clock rate follows from the peak.
    seconds = estimated_cycles(text) * 2 * chip.multipliers
    seconds /= chip.teraflops * 1e12
    hours = epochs * IMAGES / batch_size * seconds / 3600
    return row | {
        "gigabytes_moved": costs["bytes accessed"] / 1e9,
        "teraflops": costs["flops"] / 1e12,
        "megabytes_all_reduced": bytes_all_reduced(text) / 1e6,
        "estimated_ms": 1000 * seconds,
        "estimated_share_of_peak": costs["flops"]
        / (seconds * chip.teraflops * 1e12),
        "estimated_imagenet_chip_hours": hours,
    }


def estimated_cycles(text):
    """Sums the cycles that XLA estimates, counting each pass of a loop."""
    parts = re.split(r"\n(?=(?:ENTRY )?%?[\w.\-]+ .*\{\n)", text)
    lines = {
        re.match(r"(?:ENTRY )?%?([\w.\-]+)", part)[1]: part for part in parts
    }

    def count(part):
        found = re.findall(r'"estimated_cycles":"(\d+)"', part)
        total = sum(map(int, found))
        for line in part.splitlines():
            if body := re.search(r" while\(.*body=%([\w.\-]+)", line):
                times = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
                total += int(times[1]) * count(lines[body[1]])
            elif called := re.search(r" call\(.*to_apply=%([\w.\-]+)", line):
                total += count(lines[called[1]])
        return total

    return count(next(part for part in parts if part.startswith("ENTRY")))


def bytes_all_reduced(text):
    """Returns the number of bytes that each chip exchanges with others."""
    shapes = re.findall(r" = (.*?) all-reduce(?:-start)?\(", text)
    return sum(map(_bytes, shapes))


def bytes_of_kernels(text):
    """Lists the bytes that each kernel of a GPU program reads and writes."""
    sizes, moved = {}, []
    pattern = r"\n *(?:ROOT )?%([\w.-]+) = (.*?) ([\w-]+)\((.*?)\)"
    # Byte arrays are scratch memory.
    text = re.sub(r"[su]8\[\d+\]", "", text[text.index("\nENTRY") :])
    for name, shape, kind, inputs in re.findall(pattern, text):
        sizes[name] = _bytes(shape)
        if kind not in _NO_KERNELS:
            sources = re.findall(r"%([\w.-]+)", inputs)
            moved.append(sizes[name] + sum(map(sizes.get, sources)))
    return moved


_NO_KERNELS = {"parameter", "constant", "bitcast", "tuple", "get-tuple-element"}


def _bytes(shape):
    total = 0
    for kind, sides in re.findall(r"([a-z]+\d+)\[([\d,]*)\]", shape):
        values = math.prod(int(x) for x in sides.split(",") if x)
        total += values * int(re.search(r"\d+", kind)[0]) // 8
    return total


def read():
    """Reads the existing rows."""
    if not os.path.exists(_OUTPUT.value):
        return []
    with open(_OUTPUT.value) as file:
        return json.load(file)["results"]


def write(row):
    """Adds a row to the JSON file."""
    rows = sorted([*read(), row], key=lambda x: str([*x.values()][:5]))
    title = "Compiled, not run: training on 4 TPU chips or one GPU"
    dump_json(_OUTPUT.value, {"title": title, "results": rows})


if __name__ == "__main__":
    app.run(main)
