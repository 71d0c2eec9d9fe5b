"""Measures every kind of artifact of one model, in the runtime it is for.

    taskset -c 0 python export/benchmark.py --model 256_8 --images FOLDER \
        --split test --limit 10000 --calibration FOLDER --output artifacts.json

Exports the model as SavedModel, TF Hub module, ONNX and TFLite (float32,
float16, dynamic, int4, int8); `--artifact NAME=PATH` adds files that exist.
Compares all of them on the same images: size, top-1 accuracy, agreement with
the Keras model, and the processor time of one image on one thread, by turns.
Writes JSON, and prints a Markdown table.

Time: a forward pass of each over the images; five minutes of processor time
for a CIFAR-10 network and 10,000 images. Result: `results/artifacts.json`, by
an earlier form of this script, export/benchmark_artifacts.py of commit f1af6dd.
"""

import contextlib
import pathlib
import statistics
import tempfile

import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from absl import logging

from convmixer_tf.cli import calibration_flags
from convmixer_tf.cli import export_flags
from convmixer_tf.export import QUANTIZATIONS
from convmixer_tf.export import export_onnx
from convmixer_tf.export import export_saved_model
from convmixer_tf.export import export_tfhub
from convmixer_tf.export import export_tflite
from convmixer_tf.export.verification import compare_classifiers
from convmixer_tf.export.verification import open_runtime
from convmixer_tf.export.verification import predict
from convmixer_tf.files import check_destination
from convmixer_tf.files import dump_json
from convmixer_tf.files import size_of
from convmixer_tf.timing import machine

KERAS = "Keras"

_TURNS = flags.DEFINE_integer("turns", 31, "Timed runs of each.", 3)
_ARTIFACT = flags.DEFINE_multi_string(
    "artifact", [], "NAME=PATH of a further file or folder; repeatable."
)
flags.mark_flags_as_required(["model", "output", "images", "calibration"])


def further_artifacts():
    """Reads `--artifact`: a dictionary from names to paths."""
    found = {}
    for text in _ARTIFACT.value:
        name, separator, path = text.partition("=")
        if not (name and separator and path):
            raise ValueError(
                f"`--artifact` must be NAME=PATH. Received: {text}"
            )
        if not pathlib.Path(path).exists():
            raise FileNotFoundError(f"There is nothing at `{path}`.")
        found[name] = pathlib.Path(path)
    return found


def export_all(model, names, calibration, folder):
    """Exports a model in every format: a dictionary from names to paths."""
    size = model.input_shape[1]
    paths = {
        KERAS: folder / "model.keras",
        "SavedModel": folder / "saved_model",
        "TF Hub module": folder / "module",
        "ONNX": folder / "model.onnx",
    }
    logging.info("Exporting")
    model.save(paths[KERAS])
    export_saved_model(
        model, paths["SavedModel"], class_names=names, image_size=size
    )
    export_tfhub(model, paths["TF Hub module"], class_names=names)
    paths["TF Hub module"] /= "saved_model"
    export_onnx(model, paths["ONNX"])
    for quantization in QUANTIZATIONS:
        name = f"TFLite {quantization}"
        logging.info("Exporting %s", name)
        paths[name] = folder / f"{quantization}.tflite"
        export_tflite(
            model,
            paths[name],
            quantization=quantization,
            calibration_images=calibration if quantization == "int8" else None,
            class_names=names,
        )
    return paths


def measure(paths, samples, rounds):
    """Compares artifacts with the first, and times them by turns.

    Args:
        paths: Dictionary from names to paths; the first is the Keras model.
        samples: What `export_flags.load_images` returns.
        rounds: Integer, how often each is timed.

    Returns:
        List of a dictionary for each artifact.
    """
    images, labels = samples
    results, expected = [], None
    with contextlib.ExitStack() as stack:
        runtimes = {}
        for name, path in paths.items():
            logging.info("%s on %d images", name, len(images))
            runtimes[name] = stack.enter_context(open_runtime(path))
            outputs = predict(runtimes[name], images)
            expected = outputs if expected is None else expected
            found = compare_classifiers(outputs, expected, labels)
            results.append(
                {
                    "artifact": name,
                    "runtime": runtimes[name].name,
                    "bytes": size_of(path),
                    "top1": found["accuracy"] and found["accuracy"]["artifact"],
                    "agreement": found["agreement"],
                    "largest_difference": found["differences"]["probabilities"][
                        "max"
                    ],
                }
            )
        logging.info("Timing, by turns")
        seconds = take_turns(runtimes, images[0], rounds)
    for result in results:
        median = statistics.median(seconds[result["artifact"]])
        result["milliseconds"] = 1e3 * median
    return results


def take_turns(runtimes, image, rounds):
    """Times runtimes on one image by turns, after one untimed run of each.

    Args:
        runtimes: Dictionary from names to `Runtime`s.
        image: Pixels, (height, width, channels).
        rounds: Integer, how often each is timed.

    Returns:
        Dictionary from names to lists of seconds of processor time, in the
        process that computes.
    """
    seconds = {name: [] for name in runtimes}
    batch = np.float32(image)[None]
    for number in range(rounds + 1):
        for name, runtime in runtimes.items():
            _, spent = runtime.run(batch)
            if number:
                seconds[name].append(spent)
    return seconds


def print_results(results):
    """Prints a line for each artifact."""
    rows = [("artifact", "kB", "top-1", "same class as Keras", "ms")]
    for r in results:
        top1 = "-" if r["top1"] is None else f"{r['top1']:.2%}"
        rows.append(
            (
                r["artifact"],
                f"{r['bytes'] / 1e3:,.0f}",
                top1.replace("%", " %"),
                f"{r['agreement']:.2%}".replace("%", " %"),
                f"{r['milliseconds']:.2f}",
            )
        )
    export_flags.print_table(rows)


def main(argv):
    """Measures what the flags name."""
    export_flags.begin(argv)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    with export_flags.errors_end_it():
        output = export_flags.OUTPUT.value
        check_destination(output, (".json",), export_flags.OVERWRITE.value)
        further = further_artifacts()
        model, names = export_flags.load_model()
        samples = export_flags.load_images(model, names)
        calibration = calibration_flags.load_images(model, samples)
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            paths = export_all(model, names, calibration, folder)
            results = measure({**paths, **further}, samples, _TURNS.value)
        dump_json(
            output,
            {
                "machine": {**machine(), "tensorflow": tf.__version__},
                "clock": "processor time of the process that computes",
                "threads": 1,
                "model": flags.FLAGS.model,
                "images": len(samples[0]),
                "calibration_images": len(calibration),
                "artifacts": results,
            },
        )
    print_results(results)


if __name__ == "__main__":
    app.run(main)
