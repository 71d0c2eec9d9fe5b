"""Compiles training for TPUs that are described, not there.

    python recipes/compile_for_chips.py --model 1024_20 --batch_sizes 64,128

It needs an environment with TensorFlow for TPUs and JAX's compiler for them:
see BUILD.md. Nothing is run: memory, traffic and cycles are the compiler's
account of the trainer's own update, on 4 chips, in bfloat16 with a running
mean of the weights. Time is its cycles at the clock that the chip's peak
implies, without what the chip waits for: data, the host, other chips.

Each combination is a row in the JSON file; rows that are there are replaced.
"""

import dataclasses
import json
import math
import os
import re

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
from convmixer_tf.training import TrainConfig
from convmixer_tf.training.step import Engine

REPLICAS = 4
IMAGES = 1_281_167  # of ImageNet
MODELS = {  # and how many epochs the authors trained them
    "1536_20": (ConvMixer1536_20, 150),
    "768_32": (ConvMixer768_32, 300),
    "1024_20": (ConvMixer1024_20, 150),
}


@dataclasses.dataclass(frozen=True)
class Chip:
    """What libtpu calls 4 of them, and what their maker says of each."""

    topology: str
    gibibytes: float
    teraflops: float  # in bfloat16
    multipliers: int  # that work at a time

    @property
    def hertz(self):
        """The clock at which the peak is reached."""
        return self.teraflops * 1e12 / (2 * self.multipliers)


CHIPS = {
    "v5e": Chip("v5e:2x2", 16, 197, 4 * 128**2),
    "v5p": Chip("v5p:2x2x1", 95, 459, 8 * 128**2),
    "v6e": Chip("v6e:2x2", 32, 918, 4 * 256**2),
}

_MODEL = flags.DEFINE_enum("model", "1024_20", MODELS, "Which ConvMixer.")
_CHIPS = flags.DEFINE_list("chips", ["v5e"], f"Some of {', '.join(CHIPS)}.")
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["64"], "Images per chip.")
_REMAT = flags.DEFINE_bool("remat", False, "As for training.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "Side, in pixels.")
_OUTPUT = flags.DEFINE_string("output", "compiled_for_tpu.json", "JSON file.")


def main(argv):
    """Compiles each combination, and writes after each."""
    del argv
    logging.set_verbosity(logging.INFO)
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, REPLICAS * [tf.config.LogicalDeviceConfiguration()]
    )
    strategy = described_chips.tpu_strategy(REPLICAS)
    keras.config.set_dtype_policy("mixed_bfloat16")
    build, epochs = MODELS[_MODEL.value]
    size = _IMAGE_SIZE.value
    with strategy.scope():
        model = build(
            weights=None,
            input_shape=(size, size, 3),
            classifier_activation=None,
            remat=_REMAT.value,
        )
    for batch_size in map(int, _BATCH_SIZES.value):
        program = lower_update(strategy, model, batch_size, size)
        for name in _CHIPS.value:
            row = {
                "model": _MODEL.value,
                "chip": name,
                "images_per_chip": batch_size,
                "remat": _REMAT.value,
                **measure(program, CHIPS[name], batch_size, epochs),
            }
            write(_OUTPUT.value, row)
            logging.info("%s", row)


def lower_update(strategy, model, batch_size, size):
    """Lowers an update of a model's weights for a TPU."""
    config = TrainConfig(batch_size=batch_size * REPLICAS, ema_decay=0.9999)
    with strategy.scope():
        engine = Engine(config, model, strategy)
    batch = (
        described_chips.per_replica(
            strategy, (batch_size, size, size, 3), "uint8"
        ),
        described_chips.per_replica(
            strategy, (batch_size, model.output_shape[-1]), "float32"
        ),
    )
    update = tf.function(engine._update).get_concrete_function(batch)
    return described_chips.Program(update)


def measure(program, chip, batch_size, epochs):
    """Compiles a program and reads off what the compiler says of it."""
    devices = described_chips.described_devices(chip.topology)[:REPLICAS]
    try:
        compiled = described_chips.compile_program(program, devices)
    except Exception as error:  # XLA's, of no public class.
        used = re.search(r"Used ([\d.]+)G of", str(error))
        if not used:
            raise
        return {"fits": False, "gibibytes": float(used[1])}
    memory, costs = (
        compiled.get_compiled_memory_stats(),
        compiled.cost_analysis(),
    )
    text = compiled.hlo_modules()[0].to_string()
    seconds = estimated_cycles(text) / chip.hertz
    hours = epochs * IMAGES / batch_size * seconds / 3600
    return {
        "fits": True,
        "gibibytes": memory.peak_memory_in_bytes / 2**30,
        "teraflops": costs["flops"] / 1e12,
        "gigabytes_moved": costs["bytes accessed"] / 1e9,
        "megabytes_all_reduced": bytes_all_reduced(text) / 1e6,
        "estimated_ms": 1000 * seconds,
        "estimated_share_of_peak": costs["flops"]
        / (seconds * chip.teraflops * 1e12),
        "estimated_imagenet_chip_hours": hours,
    }


def estimated_cycles(text):
    """Sums up the cycles that XLA estimates, loops as often as they run."""
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
    """Adds up what each chip exchanges with the others."""
    total = 0
    for shapes in re.findall(r" = (.*?) all-reduce(?:-start)?\(", text):
        for kind, sides in re.findall(r"([a-z]+\d+)\[([\d,]*)\]", shapes):
            values = math.prod(int(x) for x in sides.split(",") if x)
            total += values * int(re.search(r"\d+", kind)[0]) // 8
    return total


def write(path, row):
    """Puts a row into the table, in place of an older one."""
    keys = ("model", "chip", "images_per_chip", "remat")
    rows = []
    if os.path.exists(path):
        with open(path) as file:
            rows = json.load(file)["results"]
    rows = [old for old in rows if any(old[key] != row[key] for key in keys)]
    rows = sorted([*rows, row], key=lambda x: [str(x[key]) for key in keys])
    title = "Compiled, not run: training on 4 TPU chips"
    dump_json(path, {"title": title, "results": rows})


if __name__ == "__main__":
    app.run(main)
