"""Compares quantization-aware training with plain and without training.

    pip install "convmixer_tf[train,export,qat]"
    python recipes/compare_qat.py --model k7/model.keras --data FOLDER \
        --eval_split test --crop_fraction 1 --eval_images 10000 --threads 1 \
        --output runs/qat_k7

For each number format (int8, int4), it compares the file without any training
and, for each seed, the files after training with rounding ("quantize") and
after the same training without rounding ("float"). All are measured on the same
images, which were not used for training or calibration.

It writes `results.json` and prints a table. To resume a stopped run, run the
same command.

Time: for 3 seeds, 12 trainings of 4,000 images of CIFAR-10, a minute and a
half each for a 128/6 network on one core. Result: results/qat_*.json.
"""

import statistics

import launch
import tuning_data
from absl import flags
from absl import logging

from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import deploy
from convmixer_tf.files import dump_json
from convmixer_tf.files import made_parents

METHODS = ("quantize", "float")

flags.adopt_module_key_flags(tuning_data)
_OUTPUT = flags.DEFINE_string("output", "runs/compare_qat", "Folder.")
_QUANTIZATIONS = tuning_data.define_quantization(
    flags.DEFINE_multi_enum,
    ["int8", "int4"],
    "Number format to compare in; repeatable.",
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Number of trainings of each.", 1)


def trainings():
    """Lists the trainings: (quantization, method, seed)."""
    return [
        (quantization, method, seed)
        for quantization in _QUANTIZATIONS.value
        for seed in range(_SEEDS.value)
        for method in METHODS
    ]


def measure(tuning, expected, folder):
    """Creates and measures all files.

    Args:
        tuning: A `tuning_data.TuningData`.
        expected: The model's outputs for the test images.
        folder: Path of the folder to write to.

    Returns:
        List with a dictionary for each file.
    """
    images, _ = tuning.test
    results = []

    def add(name, model, quantization, **facts):
        path = folder / f"{name}.tflite"
        tuning.export(path, model, quantization)
        outputs = LiteRTModel(path).predict(images)
        results.append(
            {
                "quantization": quantization,
                **facts,
                "bytes": path.stat().st_size,
                **tuning.compare(outputs, expected),
            }
        )

    for quantization in _QUANTIZATIONS.value:
        name = f"before_{quantization}"
        add(name, tuning.model, quantization, method=None)
    for quantization, method, seed in trainings():
        logging.info("%s, %s, seed %d", method, quantization, seed)
        name = f"{method}_{quantization}_{seed}"
        deployed, found = tuning.tune(
            folder / name, quantization, tuning_data.config(method, seed)
        )
        facts = {"method": method, "seed": seed, "loss": found["loss"]}
        add(name, deployed, quantization, **facts)
    return results


def summarize(results):
    """Computes mean, minimum and maximum over seeds, and the gain.

    Args:
        results: Results from `measure`.

    Returns:
        List with a dictionary for each quantization and method. `"gain"` is the
        mean top-1 minus the top-1 of the file without training. `"spread"` is
        the maximum minus the minimum over the seeds.
    """
    before, groups = {}, {}
    for result in results:
        key = (result["quantization"], result["method"])
        if result["method"] is None:
            before[result["quantization"]] = result["top1"]
        else:
            groups.setdefault(key, []).append(result["top1"])
    return [
        {
            "quantization": quantization,
            "method": method,
            "seeds": len(values),
            "top1": statistics.mean(values),
            "least": min(values),
            "largest": max(values),
            "spread": max(values) - min(values),
            "gain": statistics.mean(values) - before[quantization],
        }
        for (quantization, method), values in groups.items()
    ]


def verdicts(summary):
    """States for each quantization whether training with rounding helps.

    Args:
        summary: Summary from `summarize`.

    Returns:
        List of sentences.
    """
    found = {(row["quantization"], row["method"]): row for row in summary}
    sentences = []
    for quantization in dict.fromkeys(row["quantization"] for row in summary):
        rounded = found[quantization, "quantize"]
        control = found[quantization, "float"]
        spread = max(rounded["spread"], control["spread"])
        for gain, what in (
            (rounded["gain"], "the file without training"),
            (
                rounded["top1"] - control["top1"],
                "the same training without rounding",
            ),
        ):
            verb = "beats" if gain > spread else "does not beat"
            sentences.append(
                f"{quantization}: training with rounding {verb} {what} by more "
                f"than the spread of the seeds ({100 * gain:+.2f} points, "
                f"spread {100 * spread:.2f})."
            )
    return sentences


def table(results):
    """Formats results as a Markdown table."""
    lines = [
        "| quantization | training | seed | kB | top-1 | agreement |",
        "|---|---|---|---|---|---|",
    ]
    for r in results:
        lines.append(
            f"| {r['quantization']} | {r['method'] or 'none'} "
            f"| {r.get('seed', '-')} | {r['bytes'] / 1e3:.0f} "
            f"| {r['top1']:.2%} | {r['agreement']:.2%} |"
        )
    return "\n".join(lines)


def main(argv):
    """Trains, measures and compares."""
    folder = tuning_data.start(argv, _OUTPUT.value)
    settings = tuning_data.config(METHODS[0], 0).result_settings()
    tuning = tuning_data.read()
    images, _ = tuning.test
    expected = deploy(tuning.model).predict(images, verbose=0)
    with made_parents(folder / "results.json"):
        results = measure(tuning, expected, folder)
    summary = summarize(results)
    sentences = verdicts(summary)
    dump_json(
        folder / "results.json",
        {
            "settings": {
                name: value
                for name, value in settings.items()
                if name not in ("method", "seed")  # They differ between files.
            },
            "images": tuning.counts(),
            "model": tuning.compare(expected, expected),
            "summary": summary,
            "verdicts": sentences,
            "files": results,
        },
    )
    print(table(results), *sentences, sep="\n")


if __name__ == "__main__":
    launch.run(main)
