"""Times and checks what this package computes otherwise than TensorFlow does.

    taskset -c 0 python recipes/benchmark_operations.py

On a CPU a few layers of ours replace operations of TensorFlow's that are slow,
or wrong in bfloat16. For each: the time on one thread, the processor's, of
Keras' own and of ours, which take turns; and how far their results are from
float64, the largest difference over the largest value. A layer that trains
is timed forward and backward, with all gradients.

Time: two minutes. Result: results/operations.json and a table; see "Speed" in
BUILD.md.
"""

import contextlib
import functools
import json
import statistics
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from speed.device import machine
from speed.tensorflow_backend import set_up

from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced
from convmixer_tf.layers import acceleration
from convmixer_tf.layers.conv_act_norm import batch_norm
from convmixer_tf.layers.conv_act_norm import conv_act_norm
from convmixer_tf.layers.convolution import Conv2D
from convmixer_tf.layers.depthwise import DepthwiseConv2D
from convmixer_tf.timing import take_turns

LARGE, SMALL = (4, 16, 16, 1024), (64, 16, 16, 256)  # Of 1024/20, of 256/8.
IMAGES = (4, 224, 224, 3)
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


class Gelu(keras.layers.Layer):
    """The exact GELU."""

    def call(self, x, training=None):
        return acceleration.activate(keras.activations.gelu, x, training)


class Residual(keras.layers.Layer):
    """What follows a block's depthwise convolution: GELU, norm and sum."""

    def build(self, shape):
        self.norm = batch_norm("channels_last", self.dtype_policy, "norm")
        self.norm.build(shape)

    def call(self, x, training=None):
        return conv_act_norm(
            x,
            conv=lambda x: x,
            activation=keras.activations.gelu,
            norm=self.norm,
            training=training,
            residual=lambda x, training: x,
        )


def _depthwise(size, ours, dtype):
    cls = DepthwiseConv2D if ours else keras.layers.DepthwiseConv2D
    return cls(size, padding="same", dtype=dtype)


def _patches(dim, size, ours, dtype):
    cls = Conv2D if ours else keras.layers.Conv2D
    return cls(dim, size, strides=size, dtype=dtype)


# These are Keras' own within `plain_operations`.
def _gelu(ours, dtype):
    return Gelu(dtype=dtype)


def _norm(ours, dtype):
    return batch_norm("channels_last", dtype, "norm")


def _residual(ours, dtype):
    return Residual(dtype=dtype)


CASES = {  # How to build the layer, its input's shape, whether it trains
    "depthwise_9": (functools.partial(_depthwise, 9), LARGE, True),
    "depthwise_5": (functools.partial(_depthwise, 5), SMALL, True),
    "patches_1024": (functools.partial(_patches, 1024, 14), IMAGES, True),
    "pointwise_1024": (functools.partial(_patches, 1024, 1), LARGE, True),
    "pointwise_256": (functools.partial(_patches, 256, 1), SMALL, True),
    "gelu": (_gelu, SMALL, True),
    "batch_norm": (_norm, SMALL, True),
    "inference_1024": (_residual, LARGE, False),
    "inference_256": (_residual, SMALL, False),
}

_CASE = flags.DEFINE_multi_enum(
    "case", list(CASES), list(CASES), "What to time; repeatable."
)
_OUTPUT = flags.DEFINE_string(
    "output", "recipes/results/operations.json", "JSON file to write."
)
_ROUNDS = flags.DEFINE_integer("rounds", 11, "Timed turns of each.", 3)


def graph(layer, trains, ours):
    """Compiles a layer's step.

    Args:
        layer: A built layer.
        trains: Boolean, whether to compute gradients too.
        ours: Boolean, whether it may have other operations than Keras' own.

    Returns:
        Function of the input and of the output's gradient, that gives a
        dictionary of arrays.
    """

    def forward(x):
        return layer(x, training=trains)

    def step(x, dy):
        if not trains:
            return {"output": forward(x)}
        weights = {w.name: w.value for w in layer.trainable_weights}
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = forward(x)
        gradients = tape.gradient(output, {"input": x, **weights}, dy)
        return {"output": output, **gradients}

    run = tf.function(
        lambda x, dy: tf.distribute.get_strategy().run(step, (x, dy))
    )

    def call(x, dy):
        plain = acceleration.plain_operations()
        with contextlib.nullcontext() if ours else plain:
            return run(x, dy)

    return call


def randomized(layer, shape):
    """Builds a layer and gives its weights random values."""
    layer.build(shape)
    rng = np.random.default_rng(0)
    for weight in layer.weights:
        values = 1 + 0.1 * rng.normal(size=weight.shape)
        if "kernel" in weight.name:
            values = rng.normal(size=weight.shape) / weight.shape[2] ** 0.5
        weight.assign(tf.cast(tf.cast(values, "bfloat16"), "float32"))
    return layer


def difference(actual, expected):
    """The largest difference, relative to the largest value."""
    actual, expected = (np.float64(values) for values in (actual, expected))
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def measure(name, dtype, rounds):
    """Times one case in one dtype and compares its results.

    Args:
        name: A key of `CASES`.
        dtype: A key of `POLICIES`.
        rounds: Integer, timed turns of each.

    Returns:
        Dictionary, ready for JSON.
    """
    build, shape, trains = CASES[name]
    rng = np.random.default_rng(0)
    output_shape = build(False, dtype)(tf.zeros(shape)).shape
    x, dy = (  # Numbers that bfloat16 has.
        tf.cast(0.5 + rng.normal(size=size), "bfloat16")
        for size in (shape, output_shape)
    )

    def step(ours, dtype):
        layer = randomized(build(ours, dtype), shape)
        return graph(layer, trains, ours)

    exact = step(False, "float64")
    expected = exact(tf.cast(x, "float64"), tf.cast(dy, "float64"))
    x, dy = (tf.cast(values, dtype) for values in (x, dy))
    steps = {
        who: functools.partial(step(who == "ours", POLICIES[dtype]), x, dy)
        for who in ("keras", "ours")
    }
    errors = {
        who: {
            key: difference(value, expected[key])
            for key, value in step().items()
        }
        for who, step in steps.items()
    }
    seconds = take_turns(steps, rounds, warmup=1, clock=time.process_time)
    times = {who: 1e3 * statistics.median(seconds[who]) for who in steps}
    return {
        "case": name,
        "shape": shape,
        "dtype": dtype,
        "trains": trains,
        "ms": times,
        "ratio": times["ours"] / times["keras"],
        "difference": errors,
    }


def table(results):
    """Lays the results out in Markdown.

    Args:
        results: List of what `measure` gives.

    Returns:
        List of lines.
    """
    lines = [
        "| case | shape | dtype | Keras' own, ms | ours, ms | ratio "
        "| Keras' own: farthest from float64 | ours |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        shape = "x".join(map(str, result["shape"]))
        ms = result["ms"]
        farthest = (
            "{} {:.0e}".format(*max(of.items(), key=lambda item: item[1]))
            for of in result["difference"].values()
        )
        lines.append(
            f"| {result['case']} | {shape} | {result['dtype']} "
            f"| {ms['keras']:.1f} | {ms['ours']:.1f} | {result['ratio']:.2f} "
            f"| {' | '.join(farthest)} |"
        )
    return lines


def main(argv):
    """Measures what the flags ask for, and writes it."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    check_destination(_OUTPUT.value, (".json",), overwrite=True)
    if acceleration.tensorflow_cpu() is None:
        raise app.UsageError(
            "This is about TensorFlow on a CPU. Received: "
            f"KERAS_BACKEND={keras.backend.backend()}, with the devices "
            f"{[d.name for d in tf.config.list_logical_devices()]}"
        )
    results = []
    for name in _CASE.value:
        for dtype in POLICIES:
            results.append(measure(name, dtype, _ROUNDS.value))
            print(table(results[-1:])[-1], flush=True)
    report = {
        "machine": machine(),
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "threads": 1,
        "rounds": _ROUNDS.value,
        "results": results,
    }
    with replaced(_OUTPUT.value) as unfinished, open(unfinished, "w") as file:
        json.dump(report, file, indent=2)
    print("\n".join(table(results)))


if __name__ == "__main__":
    set_up(threads=1, tf32=False)
    app.run(main)
