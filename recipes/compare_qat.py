"""Compares training for small files with none, and with plain training.

    pip install "convmixer_tf[train,export,qat]"
    python recipes/compare_qat.py --model k7/model.keras --data FOLDER \
        --eval_split test --crop_fraction 1 --eval_images 10000 --threads 1 \
        --output runs/qat_k7

For each scheme (int8, int4): the file without any training, and for each seed
files after training with rounding ("quantize") and after the same training
without ("float"). Then pruned and clustered ones, as float16 and as int8,
with their sizes as they are and by gzip. All files take turns in LiteRT, one
thread, one image. All are measured on the same images, which nothing was
trained on or calibrated with.

Ends in `results.json` and a table. A run that was stopped goes on with the
same command.

Time: for 3 seeds, 16 trainings of 4,000 images of CIFAR-10, a minute and a
half each for a 128/6 network on one core. Result: results/qat_*.json.
"""

import os
import pathlib
import statistics

import launch
import tuning_data
from absl import flags
from absl import logging

from convmixer_tf import timing
from convmixer_tf.export import LiteRTModel
from convmixer_tf.export.preparation import in_float32
from convmixer_tf.export.qat import TuningConfig
from convmixer_tf.export.qat import fine_tune

SCHEMES = {"int8": "int8", "int4": "int4"}
SIZE_SCHEMES = {"float16": "float16", "int8": "int8"}
BEFORE = {"float32": None, "float16": "float16", "dynamic": "dynamic"} | SCHEMES

flags.adopt_module_key_flags(tuning_data)
_OUTPUT = flags.DEFINE_string("output", "runs/compare_qat", "Folder.")
_SCHEME = flags.DEFINE_multi_enum(
    "scheme", list(SCHEMES), list(SCHEMES), "To round for; repeatable."
)
_SIZES = flags.DEFINE_bool("sizes", True, "Whether to prune and cluster, too.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "How many trainings of each.", 1)
_EPOCHS = flags.DEFINE_integer("epochs", 1, "Passes over the images.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-4, "Adam's, at first.")
_SPARSITY = flags.DEFINE_float("sparsity", 0.5, "Of prune: fraction of zeros.")
_CLUSTERS = flags.DEFINE_integer("clusters", 16, "Of cluster: values a kernel.")
_THREADS = flags.DEFINE_integer("threads", 0, "Threads to train with; 0: all.")
_TURNS = flags.DEFINE_integer("turns", 31, "Timed runs of each file.", 3)


def contestants():
    """Lists what is trained: (method, scheme, seed)."""
    for scheme in _SCHEME.value:
        for seed in range(_SEEDS.value):
            yield "quantize", scheme, seed
            yield "float", scheme, seed
    for scheme in SIZE_SCHEMES if _SIZES.value else ():
        yield "prune", scheme, 0
        yield "cluster", scheme, 0


def tune(method, scheme, seed, material, folder):
    """Trains, or reads what was trained.

    Returns:
        What `fine_tune` returns.
    """
    config = TuningConfig(
        method=method,
        epochs=_EPOCHS.value,
        learning_rate=_LEARNING_RATE.value,
        sparsity=_SPARSITY.value,
        clusters=_CLUSTERS.value,
        seed=seed,
        threads=_THREADS.value,
    )
    return fine_tune(
        material.model,
        folder / f"{method}_{scheme}_{seed}",
        *material.train,
        config,
        quantization=scheme,
        calibration_images=material.calibration if scheme == "int8" else None,
    )


def describe(path, material, expected):
    """Measures a file; see `tuning_data.compare`."""
    outputs = LiteRTModel(path).predict(material.test[0])
    return {
        **tuning_data.sizes(path),
        **tuning_data.compare(outputs, expected, material.test[1]),
    }


def measure(material, expected, folder):
    """Makes and measures all files.

    Returns:
        List of dictionaries, and the files' paths in the same order.
    """
    results, paths = [], []
    for scheme, quantization in BEFORE.items():
        path = folder / f"before_{scheme}.tflite"
        tuning_data.export(path, material.model, quantization, material)
        found = describe(path, material, expected)
        results.append({"method": None, "scheme": scheme, **found})
        paths.append(path)
    for method, scheme, seed in contestants():
        logging.info("%s, %s, seed %d", method, scheme, seed)
        deployed, found = tune(method, scheme, seed, material, folder)
        path = folder / f"{method}_{scheme}_{seed}.tflite"
        tuning_data.export(path, deployed, scheme, material)
        tuned = deployed.predict(material.test[0], verbose=0)
        results.append(
            {
                "method": method,
                "scheme": scheme,
                "seed": seed,
                **describe(path, material, expected),
                "keras_top1": tuning_data.top1(tuned, material.test[1]),
                **{k: found[k] for k in ("parity", "loss", "zeros", "values")},
            }
        )
        paths.append(path)
    return results, paths


def add_times(results, paths, image):
    """Times all files in turns, in milliseconds of processor time."""
    models = {path: LiteRTModel(path) for path in paths}
    seconds = timing.take_turns(
        {p: lambda m=m: m.predict(image) for p, m in models.items()},
        _TURNS.value,
        1,
        timing.CLOCKS["cpu"],
    )
    for result, path in zip(results, paths, strict=True):
        result["milliseconds"] = 1e3 * statistics.median(seconds[path])


def summarise(results):
    """Reduces the seeds to mean, least and largest; compares with no training.

    Args:
        results: What `measure` returns.

    Returns:
        List of a dictionary for each scheme and method. `"gain"` is the mean
        top-1 less that of the untrained file, `"spread"` the largest less the
        least of the seeds.
    """
    before = {r["scheme"]: r["top1"] for r in results if r["method"] is None}
    groups = {}
    for result in results:
        if result["method"]:
            key = (result["scheme"], result["method"])
            groups.setdefault(key, []).append(result["top1"])
    return [
        {
            "scheme": scheme,
            "method": method,
            "seeds": len(values),
            "top1": statistics.mean(values),
            "least": min(values),
            "largest": max(values),
            "spread": max(values) - min(values),
            "gain": statistics.mean(values) - before[scheme],
        }
        for (scheme, method), values in groups.items()
    ]


def verdicts(summary):
    """Says for each scheme whether training with rounding pays.

    Args:
        summary: What `summarise` returns.

    Returns:
        List of sentences.
    """
    found = {(row["scheme"], row["method"]): row for row in summary}
    for scheme in SCHEMES:
        if (scheme, "quantize") not in found:
            continue
        rounded = found[scheme, "quantize"]
        control = found[scheme, "float"]
        over_control = rounded["top1"] - control["top1"]
        spread = max(rounded["spread"], control["spread"])
        for gain, what in (
            (rounded["gain"], "the file without training"),
            (over_control, "the same training without rounding"),
        ):
            verb = "beats" if gain > spread else "does not beat"
            yield (
                f"{scheme}: training with rounding {verb} {what} by more than "
                f"the spread of the seeds ({100 * gain:+.2f} points, spread "
                f"{100 * spread:.2f})."
            )


def table(results):
    """Formats results as a Markdown table."""
    lines = [
        "| scheme | training | seed | kB | gzip, kB | top-1 | agreement | ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        lines.append(
            f"| {r['scheme']} | {r['method'] or 'none'} | {r.get('seed', '-')} "
            f"| {r['bytes'] / 1e3:.0f} | {r['gzip'] / 1e3:.0f} "
            f"| {r['top1']:.2%} | {r['agreement']:.2%} "
            f"| {r['milliseconds']:.2f} |"
        )
    return "\n".join(lines)


def main(argv):
    """Trains, measures and compares as the flags say."""
    tuning_data.begin(argv)
    folder = pathlib.Path(_OUTPUT.value)
    os.makedirs(folder, exist_ok=True)
    material = tuning_data.read()
    images, labels = material.test
    expected = in_float32(material.model).predict(images, verbose=0)
    results, paths = measure(material, expected, folder)
    add_times(results, paths, images[:1])
    summary = summarise(results)
    said = list(verdicts(summary))
    tuning_data.write_json(
        folder / "results.json",
        {
            "model": os.path.basename(os.path.dirname(material.path)),
            "images": material.counts(),
            "epochs": _EPOCHS.value,
            "learning_rate": _LEARNING_RATE.value,
            "sparsity": _SPARSITY.value,
            "clusters": _CLUSTERS.value,
            "processor": timing.cpu().get("model name"),
            "keras_top1": tuning_data.top1(expected, labels),
            "summary": summary,
            "verdicts": said,
            "files": results,
        },
    )
    print(table(results), *said, sep="\n")


if __name__ == "__main__":
    launch.run(main)
