"""Times whole TFLite files: of deployed models and of the models as they are.

    taskset -c 0 python export/benchmark_deploy.py

Weights are random; they do not change how long a file takes. Of each precision
there are two files: what TensorFlow's converter makes of the model, and what
`export_tflite` makes. All files of a model take turns in LiteRT; only the
ratios mean something.

Time: half an hour. Results: results/deploy.json, and "Deployment" in
BUILD.md.
"""

import itertools
import os
import pathlib
import sys
import tempfile

import litert_timing
import numpy as np
from absl import app
from absl import flags

from convmixer_tf import ConvMixer
from convmixer_tf.export import export_tflite
from convmixer_tf.files import check_destination

MODELS = {  # dim, depth, kernel size, patch size, activation, image's side
    "1024_20": (1024, 20, 9, 14, "gelu", 224),
    "768_32": (768, 32, 7, 7, "relu", 224),
    "1536_20": (1536, 20, 9, 7, "gelu", 224),
    "256_8": (256, 8, 5, 2, "gelu", 32),
}
CONTESTANTS = ("plain", "deployed")
PRECISIONS = {"float32": None, "dynamic": "dynamic", "int8": "int8"}

_MODEL = flags.DEFINE_multi_enum(
    "model",
    list(MODELS),
    list(MODELS),
    "What to time; repeatable.",
)
_PRECISION = flags.DEFINE_multi_enum(
    "precision",
    list(PRECISIONS),
    list(PRECISIONS),
    "What the files compute in; repeatable.",
)
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Timed runs of each.", 3)
_OUTPUT = flags.DEFINE_string("output", "deploy.json", "JSON file to write.")
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Whether to replace an existing file."
)


def export(model, precision, path, plain):
    """Writes a model as a TFLite file; calibrated on noise, if at all."""
    images = None
    if precision == "int8":
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (10, *model.input_shape[1:]))
    export_tflite(
        model,
        path,
        quantization=PRECISIONS[precision],
        calibration_images=images,
        plain=plain,
    )


def measure(name, precisions, rounds):
    """Times a model as it is and deployed.

    Returns:
        List of dictionaries, one for each precision, ready for JSON; times in
        milliseconds per image.
    """
    *architecture, side = MODELS[name]
    model = ConvMixer(*architecture, input_shape=(side, side, 3), name=name)
    runs, megabytes = {}, {}
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "model.tflite"
        for key in itertools.product(precisions, CONTESTANTS):
            precision, contestant = key
            export(model, precision, path, contestant == "plain")
            megabytes[key] = os.path.getsize(path) / 1e6
            runs[key] = litert_timing.load(path)
            path.unlink()
    times = litert_timing.take_turns(runs, rounds)
    unit = times.get(("float32", "deployed"))
    return [
        {
            "model": name,
            "precision": precision,
            "milliseconds": {c: times[precision, c] for c in CONTESTANTS},
            "ratio": times[precision, "deployed"] / times[precision, "plain"],
            "ratio_to_float32": unit and times[precision, "deployed"] / unit,
            "megabytes": {c: megabytes[precision, c] for c in CONTESTANTS},
        }
        for precision in precisions
    ]


def table(results):
    """Formats results as a Markdown table."""
    lines = [
        "| model | precision | plain, ms | deployed, ms | ratio "
        "| to deployed float32 | MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        times, size = r["milliseconds"], r["megabytes"]
        to_float32 = r["ratio_to_float32"]
        to_float32 = f"{to_float32:.2f}" if to_float32 else "-"
        lines.append(
            f"| {r['model']} | {r['precision']} | {times['plain']:.1f} "
            f"| {times['deployed']:.1f} | {r['ratio']:.2f} "
            f"| {to_float32} | {size['plain']:.1f}, {size['deployed']:.1f} |"
        )
    return "\n".join(lines)


def main(arguments):
    """Times every model and writes the JSON file after each of them."""
    if len(arguments) > 1:
        raise app.UsageError(f"Unexpected arguments: {arguments[1:]}")
    try:
        check_destination(_OUTPUT.value, (".json",), _OVERWRITE.value)
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    results = []
    for name in _MODEL.value:
        results += measure(name, _PRECISION.value, _ROUNDS.value)
        litert_timing.write(_OUTPUT.value, results)
        print(table(results), flush=True)


if __name__ == "__main__":
    app.run(main)
