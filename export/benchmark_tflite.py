"""Measures every number format of TFLite files on a trained network.

    taskset -c 0 python export/benchmark_tflite.py --model model.keras \
        --images FOLDER --split test --crop_fraction 1 --calibration FOLDER \
        --output tflite.json

Each format is made by TensorFlow's converter from the model as it is
("plain"), and by this package. All files see the same images, and take turns
in LiteRT on one thread, so that their times can be compared.

Time: some minutes for a CIFAR-10 network. Results:
results/tflite_cifar10_*.json, and "Deployment" in BUILD.md.
"""

import os
import pathlib
import tempfile

import calibration_flags
import export_flags
import litert_timing
from absl import app
from absl import flags
from absl import logging

from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import export_tflite
from convmixer_tf.export.preparation import in_float32
from convmixer_tf.export.tflite import PLAIN_QUANTIZATIONS
from convmixer_tf.export.tflite import QUANTIZATIONS
from convmixer_tf.export.verification.comparison import compare_classifiers
from convmixer_tf.files import check_destination

flags.adopt_module_key_flags(export_flags)
flags.adopt_module_key_flags(calibration_flags)
_TURNS = flags.DEFINE_integer("turns", 31, "Timed runs of each.", 3)
flags.mark_flags_as_required(["model", "output", "images", "calibration"])


def contestants():
    """Lists the files: (format, whether plain)."""
    for quantization in QUANTIZATIONS:
        if quantization in PLAIN_QUANTIZATIONS:
            yield quantization, True
        yield quantization, False


def measure(model, names, samples, calibration, folder):
    """Exports all files and compares them with the model.

    Returns:
        Dictionary from (format, whether plain) to a dictionary of results,
        and one to the files' paths.
    """
    images, labels = samples
    expected = in_float32(model).predict(images, batch_size=64, verbose=0)
    results, paths = {}, {}
    for quantization, plain in contestants():
        path = pathlib.Path(folder) / f"{quantization}_{plain}.tflite"
        logging.info("%s, %s", quantization, "plain" if plain else "ours")
        export_tflite(
            model,
            path,
            quantization=quantization,
            calibration_images=calibration if quantization == "int8" else None,
            class_names=names,
            plain=plain,
        )
        found = compare_classifiers(
            LiteRTModel(path).predict(images), expected, labels
        )
        results[quantization, plain] = {
            "format": quantization or "float32",
            "plain": plain,
            "bytes": os.path.getsize(path),
            "agreement": found["agreement"],
            "top1": found["accuracy"] and found["accuracy"]["artefact"],
            "keras_top1": found["accuracy"] and found["accuracy"]["model"],
            "mean_difference": found["differences"]["probabilities"]["mean"],
        }
        paths[quantization, plain] = path
    return results, paths


def add_times(results, paths, rounds):
    """Times all files in turns; adds milliseconds and their ratios."""
    times = litert_timing.take_turns(
        {key: litert_timing.load(path) for key, path in paths.items()}, rounds
    )
    for (quantization, plain), result in results.items():
        time = times[quantization, plain]
        result["milliseconds"] = time
        result["ratio_to_our_float32"] = time / times[None, False]
        if quantization in PLAIN_QUANTIZATIONS:
            result["ratio_to_plain"] = time / times[quantization, True]


def table(results):
    """Formats results as a Markdown table."""
    lines = [
        "| format | made | kB | agreement | top-1 | mean difference | ms "
        "| to plain | to float32 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        to_plain = r.get("ratio_to_plain")
        to_plain = f"{to_plain:.2f}" if to_plain else "-"
        lines.append(
            f"| {r['format']} | {'plain' if r['plain'] else 'ours'} "
            f"| {r['bytes'] / 1e3:.0f} | {r['agreement']:.4f} "
            f"| {r['top1']:.4f} | {r['mean_difference']:.5f} "
            f"| {r['milliseconds']:.2f} | {to_plain} "
            f"| {r['ratio_to_our_float32']:.2f} |"
        )
    return "\n".join(lines)


def main(argv):
    """Measures what the flags name, and writes it as JSON."""
    export_flags.begin(argv)
    with export_flags.errors_end_it():
        output = export_flags.OUTPUT.value
        check_destination(output, (".json",), export_flags.OVERWRITE.value)
        model, names = export_flags.load_model()
        samples = export_flags.load_images(model, names)
        calibration = calibration_flags.load_images(model, samples)
        with tempfile.TemporaryDirectory() as folder:
            results, paths = measure(model, names, samples, calibration, folder)
            add_times(results, paths, _TURNS.value)
    results = list(results.values())
    litert_timing.write(
        output,
        {
            "images": len(samples[0]),
            "calibration images": len(calibration),
            "files": results,
        },
    )
    print(table(results))


if __name__ == "__main__":
    app.run(main)
