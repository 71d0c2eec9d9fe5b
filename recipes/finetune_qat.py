"""Fine-tunes a trained ConvMixer for a smaller or better TFLite file.

    pip install "convmixer_tf[train,export,qat]"
    python recipes/finetune_qat.py --model runs/mine/model.keras \
        --data FOLDER --output runs/qat

`--method quantize` trains with numbers rounded as in the file (`--scheme
int8`, `dynamic` or `int4`), `prune` sets weights of the 1 x 1 convolutions to
0 (`--sparsity`), `cluster` leaves few different values (`--clusters`), and
`float` is the same training with nothing of it, to compare with. Ends in
`METHOD_SCHEME.tflite`, verified as every other export, with a report beside
it, and `results.json`: against the file of the same scheme without any
training, on images that were neither trained on nor calibrated with.

A run that was stopped goes on with the same command.

Time: half a minute before the first update, then 100 images of CIFAR-10 in a
second for a 128/6 network, on one core. Result: results/qat_*.json.
"""

import os
import pathlib

import launch
import tuning_data
from absl import flags

from convmixer_tf.export import LiteRTModel
from convmixer_tf.export.qat import METHODS
from convmixer_tf.export.qat import TuningConfig
from convmixer_tf.export.qat import fine_tune
from convmixer_tf.export.tflite import QUANTIZATIONS
from convmixer_tf.files import check_destination

SCHEMES = {name or "float32": name for name in QUANTIZATIONS}

flags.adopt_module_key_flags(tuning_data)
_OUTPUT = flags.DEFINE_string("output", "runs/qat", "Folder of the run.")
_METHOD = flags.DEFINE_enum("method", "quantize", METHODS, "What to train for.")
_SCHEME = flags.DEFINE_enum("scheme", "int8", list(SCHEMES), "Number format.")
_EPOCHS = flags.DEFINE_integer("epochs", 1, "Passes over the images.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images per update.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-4, "Adam's, at first.")
_FLIP = flags.DEFINE_bool("flip", True, "Mirror half of the images.")
_SPARSITY = flags.DEFINE_float("sparsity", 0.5, "Of prune: fraction of zeros.")
_CLUSTERS = flags.DEFINE_integer("clusters", 16, "Of cluster: values a kernel.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of everything that is random.")
_THREADS = flags.DEFINE_integer("threads", 0, "Threads to train with; 0: all.")
_SAVE_EVERY = flags.DEFINE_integer(
    "save_every", 100, "Updates between checkpoints."
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Whether to replace a file that is there."
)


def config():
    """Collects what the flags say of the training."""
    return TuningConfig(
        method=_METHOD.value,
        epochs=_EPOCHS.value,
        batch_size=_BATCH_SIZE.value,
        learning_rate=_LEARNING_RATE.value,
        flip=_FLIP.value,
        sparsity=_SPARSITY.value,
        clusters=_CLUSTERS.value,
        seed=_SEED.value,
        threads=_THREADS.value,
        save_every=_SAVE_EVERY.value,
    )


def table(rows):
    """Formats the rows of `results.json` as a Markdown table."""
    lines = ["| | kB | gzip, kB | top-1 | agreement |", "|---|---|---|---|---|"]
    for row in rows:
        kilobytes = [
            f"{row[key] / 1e3:.0f}" if key in row else "-"
            for key in ("bytes", "gzip")
        ]
        shares = [f"{row[key]:.2%}" for key in ("top1", "agreement")]
        cells = (row["what"], *kilobytes, *shares)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv):
    """Fine-tunes, exports and compares as the flags say."""
    tuning_data.begin(argv)
    folder = pathlib.Path(_OUTPUT.value)
    name = f"{_METHOD.value}_{_SCHEME.value}"
    path, before = folder / f"{name}.tflite", folder / "before.tflite"
    os.makedirs(folder, exist_ok=True)
    check_destination(path, (".tflite",), _OVERWRITE.value)
    scheme = SCHEMES[_SCHEME.value]
    settings = config()
    material = tuning_data.read()
    model, (images, labels) = material.model, material.test
    deployed, found = fine_tune(
        model,
        folder / name,
        *material.train,
        settings,
        quantization=scheme,
        calibration_images=material.calibration if scheme == "int8" else None,
    )
    tuning_data.export(before, model, scheme, material)
    report = tuning_data.export_verified(
        path, deployed, scheme, material, before
    )
    print(report.table(), flush=True)
    expected = model.predict(images, verbose=0)
    tuned = deployed.predict(images, verbose=0)
    rows = [
        {
            "what": what,
            **(tuning_data.sizes(file) if file else {}),
            **tuning_data.compare(outputs, expected, labels),
        }
        for what, file, outputs in (
            ("model", None, expected),
            ("tuned model", None, tuned),
            ("file before", before, LiteRTModel(before).predict(images)),
            ("file tuned", path, LiteRTModel(path).predict(images)),
        )
    ]
    results = {
        "settings": {"scheme": _SCHEME.value, **settings.decisive()},
        "images": material.counts(),
        "found": {k: v for k, v in found.items() if not hasattr(v, "shape")},
        "latency": report.latency,
        "results": rows,
    }
    tuning_data.write_json(folder / "results.json", results)
    print(table(rows))


if __name__ == "__main__":
    launch.run(main)
