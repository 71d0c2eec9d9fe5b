"""Fine-tunes a trained ConvMixer for an int8 or int4 TFLite file.

    pip install "convmixer_tf[train,export,qat]"
    python recipes/finetune_qat.py --model runs/mine/model.keras \
        --data FOLDER --output runs/qat

In quantization-aware training, numbers are rounded as in the file
(`--quantization int8` or `int4`). `--method float` is the same training without
rounding, as a control. The script writes `METHOD_QUANTIZATION.tflite`, verified
like every export, with a report and a model card beside it; `before.tflite`,
the file without the training; and `results.json`, which compares them on images
that were not used for training or calibration.

To resume a stopped run, run the same command.

Time: half a minute before the first update, then 100 CIFAR-10 images per second
for a 128/6 network on one core. Result: results/qat_packaged*.json.
"""

import launch
import tuning_data
from absl import flags

from convmixer_tf import files
from convmixer_tf.export import LiteRTModel
from convmixer_tf.export import publish

flags.adopt_module_key_flags(tuning_data)
_OUTPUT = flags.DEFINE_string("output", "runs/qat", "Folder of the run.")
_METHOD = flags.DEFINE_enum(
    "method",
    "quantize",
    ["quantize", "float"],
    "Train with or without rounding.",
)
_QUANTIZATION = tuning_data.define_quantization(
    flags.DEFINE_enum, "int8", "Number format of the file."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of everything that is random.", 0)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Whether to replace an existing file."
)


def export_verified(path, model, quantization, tuning):
    """Publishes the TFLite file of a fine-tuned model.

    Args:
        path: Path of the file.
        model: Model from `fine_tune`.
        quantization: As in `export_tflite`.
        tuning: A `tuning_data.TuningData`.

    Raises:
        ValueError: If a limit is broken.
    """
    images, labels = tuning.test
    publish(
        lambda unfinished: tuning.export(unfinished, model, quantization),
        path,
        model,
        f"a TFLite file, after fine-tuning for it ({path.stem})",
        images=images,
        labels=labels,
        class_names=tuning.class_names,
        card={
            "crop_fraction": tuning.crop_fraction,
            "orientation": tuning.orientation,
        },
        on_report=lambda report: print(report.table(), flush=True),
    )


def table(rows):
    """Formats the rows of `results.json` as a Markdown table."""
    lines = ["| | kB | top-1 | agreement |", "|---|---|---|---|"]
    for row in rows:
        size = f"{row['bytes'] / 1e3:.0f}" if "bytes" in row else "-"
        lines.append(
            f"| {row['what']} | {size} | {row['top1']:.2%} "
            f"| {row['agreement']:.2%} |"
        )
    return "\n".join(lines)


def main(argv):
    """Fine-tunes, exports and compares."""
    folder = tuning_data.start(argv, _OUTPUT.value)
    config = tuning_data.config(_METHOD.value, _SEED.value)
    quantization = _QUANTIZATION.value
    name = f"{_METHOD.value}_{quantization}"
    path, before = folder / f"{name}.tflite", folder / "before.tflite"
    with files.made_parents(path):
        files.check_destination(path, (".tflite",), _OVERWRITE.value)
        tuning = tuning_data.read()
        model, (images, _) = tuning.model, tuning.test
        deployed, found = tuning.tune(folder / name, quantization, config)
    tuning.export(before, model, quantization)
    export_verified(path, deployed, quantization, tuning)
    expected = model.predict(images, verbose=0)
    rows = [
        {"what": what, **tuning.compare(outputs, expected)}
        for what, outputs in (
            ("model", expected),
            ("tuned model", deployed.predict(images, verbose=0)),
            ("file before", LiteRTModel(before).predict(images)),
            ("file tuned", LiteRTModel(path).predict(images)),
        )
    ]
    for row, file in zip(rows[2:], (before, path), strict=True):
        row["bytes"] = file.stat().st_size
    files.dump_json(
        folder / "results.json",
        {
            "quantization": quantization,
            "settings": config.result_settings(),
            "images": tuning.counts(),
            "found": {
                k: found[k] for k in ("parity", "updates", "loss", "top1")
            },
            "results": rows,
        },
    )
    print(table(rows))


if __name__ == "__main__":
    launch.run(main)
