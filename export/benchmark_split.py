"""Times the ways to split a large depthwise convolution, in LiteRT.

    taskset -c 0 python export/benchmark_split.py

Each contestant is a TFLite file of one depthwise layer, float32 or 8 bits
throughout: the kernel whole, or split into phases, rows or blocks, and the
channels at once or in groups that the caches hold. They take turns; only
the ratios mean something. `convmixer_tf/export/split_rule.py` follows from it.

Time: half an hour. Result: results/split.json, and "Deployment" in BUILD.md.
"""

import pathlib
import sys
import tempfile

import keras
import litert_timing
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from absl import logging
from keras import layers

from convmixer_tf.export.depthwise_split import depthwise
from convmixer_tf.export.split_rule import FAST_TAPS
from convmixer_tf.files import check_destination
from convmixer_tf.layers.depthwise_parts import Part
from convmixer_tf.layers.depthwise_parts import offsets
from convmixer_tf.layers.depthwise_parts import phases

# Kernel's side, map's side, channels. ConvMixer-1024/20, 768/32 and 1536/20
# at 224 pixels are (9, 16, 1024), (7, 32, 768) and (9, 32, 1536).
CASES = (
    "6,16,512",
    "7,8,256",
    "7,32,256",
    "7,32,768",
    "8,16,512",
    "9,8,256",
    "9,16,1024",
    "9,32,1536",
    "11,16,512",
    "15,16,512",
)

_CASES = flags.DEFINE_multi_string(
    "case", CASES, "Kernel's side, map's side, channels; repeatable."
)
_PRECISIONS = flags.DEFINE_multi_enum(
    "precision",
    ["float32", "int8"],
    ["float32", "int8"],
    "What the files compute in; repeatable.",
)
_WIDTHS = flags.DEFINE_multi_integer(
    "width", [128, 256], "Channels in a group; repeatable."
)
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Timed runs of each.", 3)
_OUTPUT = flags.DEFINE_string("output", "split.json", "JSON file to write.")
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Whether to replace an existing file."
)


def blocks(size, rows, columns):
    """Cuts a kernel into blocks of at most rows x columns neighbours.

    Returns:
        Tuple of `Part`.
    """
    taps = offsets(size)
    return tuple(
        Part(taps[row : row + rows], taps[column : column + columns])
        for row in range(0, size, rows)
        for column in range(0, size, columns)
    )


def forms(size):
    """Lists the ways to split a kernel.

    Args:
        size: Integer, the kernel's side.

    Returns:
        Dictionary from names to tuples of `Part`. Phases are named by their
        steps, blocks by their sides, in rows and columns.
    """
    steps = [(2, 1), (2, 2), (3, 1), (3, 3), (6, 1)]
    return {
        **{f"phases_{r}x{c}": phases(size, r, c) for r, c in steps},
        "rows": blocks(size, 1, size),
        "blocks_3x3": blocks(size, 3, 3),
        "blocks_5x5": blocks(size, 5, 5),
    }


def contestants(kernel_size, channels, widths):
    """Lists what is timed: the whole kernel, and every way to split it.

    Args:
        kernel_size: Integer, the kernel's side.
        channels: Integer.
        widths: List of integers, channels in a group.

    Returns:
        Dictionary from names to pairs of a tuple of `Part` and the number of
        channels in a group.
    """
    widths = [width for width in widths if width < channels]
    chosen = {
        f"whole, {channels} channels": (phases(kernel_size, 1, 1), channels)
    }
    for form, parts in forms(kernel_size).items():
        if len(parts[0].rows) * len(parts[0].columns) > FAST_TAPS[-1]:
            continue
        chosen[f"{form}, {channels} channels"] = (parts, channels)
        if form.startswith("phases"):
            for width in widths:
                chosen[f"{form}, {width} channels"] = (parts, width)
    return chosen


def build(kernel_size, side, channels, parts, width):
    """Builds one depthwise layer, of which each group has its own input.

    In a deployed model too, each group comes from a convolution of its own.

    Returns:
        A `keras.Model`.
    """
    rng = np.random.default_rng(0)
    inputs, outputs = [], []
    for start in range(0, channels, width):
        group = min(width, channels - start)
        x = keras.Input((side, side, group), batch_size=1)
        kernel = rng.normal(size=(kernel_size, kernel_size, group))
        bias = rng.normal(size=group)
        inputs.append(x)
        outputs.append(depthwise(x, kernel, bias, parts, f"group_{start}"))
    if len(outputs) > 1:
        outputs = [layers.Concatenate()(outputs)]
    return keras.Model(inputs, outputs)


def convert(model, precision, path):
    """Writes a model of several inputs as a TFLite file.

    Args:
        model: A `keras.Model` of static shapes.
        precision: `"float32"` or `"int8"`, inputs and outputs included.
        path: Path of the file.
    """
    specs = [tf.TensorSpec(x.shape, tf.float32) for x in model.inputs]
    run = tf.function(lambda *inputs: model(list(inputs)))
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [run.get_concrete_function(*specs)]
    )
    if precision == "int8":
        rng = np.random.default_rng(0)

        def representative_dataset():
            yield [rng.normal(size=x.shape).astype("f") for x in model.inputs]

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = representative_dataset
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        ]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
    pathlib.Path(path).write_bytes(converter.convert())


def measure(case, precision, widths, rounds):
    """Times all contestants of a case.

    Returns:
        Dictionary, ready for JSON; times in milliseconds.
    """
    kernel_size, side, channels = case
    runs = {}
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "layer.tflite"
        for name, (parts, width) in contestants(
            kernel_size, channels, widths
        ).items():
            model = build(kernel_size, side, channels, parts, width)
            convert(model, precision, path)
            runs[name] = litert_timing.load(path)
            path.unlink()
    milliseconds = litert_timing.take_turns(runs, rounds)
    return {
        "kernel_size": kernel_size,
        "side": side,
        "channels": channels,
        "precision": precision,
        "milliseconds": milliseconds,
        "fastest": min(milliseconds, key=milliseconds.get),
    }


def table(results):
    """Formats results as a Markdown table, times in milliseconds."""
    lines = [
        "| kernel | map | channels | precision | whole | fastest | ms | ratio "
        "|",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        times, best = r["milliseconds"], r["fastest"]
        whole = next(iter(times.values()))
        lines.append(
            f"| {r['kernel_size']} | {r['side']} | {r['channels']} "
            f"| {r['precision']} | {whole:.2f} | {best} | {times[best]:.2f} "
            f"| {times[best] / whole:.2f} |"
        )
    return "\n".join(lines)


def parse(case):
    """Reads "9,16,1024".

    Raises:
        ValueError: If it is not three positive integers.
    """
    numbers = [int(part) for part in case.split(",") if part.isdecimal()]
    if len(numbers) != 3 or min(numbers) < 1:
        raise ValueError(
            "Flag --case must be kernel's side, map's side and channels, such "
            f"as 9,16,1024. Received: {case}"
        )
    return tuple(numbers)


def main(arguments):
    """Times every case and writes the JSON file after each of them."""
    if len(arguments) > 1:
        raise app.UsageError(f"Unexpected arguments: {arguments[1:]}")
    try:
        cases = [parse(case) for case in _CASES.value]
        check_destination(_OUTPUT.value, (".json",), _OVERWRITE.value)
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    results = []
    for precision in _PRECISIONS.value:
        for case in cases:
            logging.info("%s %s", case, precision)
            results.append(
                measure(case, precision, _WIDTHS.value, _ROUNDS.value)
            )
            print(table(results[-1:]).splitlines()[-1], flush=True)
            litert_timing.write(_OUTPUT.value, results)
    print(table(results))


if __name__ == "__main__":
    app.run(main)
