"""Exports a ConvMixer as TFLite files, compared in LiteRT.

    python export/to_tflite.py --model runs/mine/model.keras \
        --output runs/mine --images FOLDER --calibration FOLDER \
        --scheme float16 --scheme dynamic --scheme int8

`--images` are real ones to compare on, `--calibration` others for int8: each
a folder `split/class/*.jpg`, a name in tensorflow-datasets, or a folder of
images. A file for each scheme appears in `--output`, named after the model and
the scheme, with its report beside it, if it does what the model does.

Time: for each scheme the conversion (seconds; minutes for the large variants)
and a forward pass over the images. Results: `results/tflite_cifar10_*.json`.
"""

import os

import calibration_flags
import export_flags
from absl import app
from absl import flags
from absl import logging

from convmixer_tf.export import export_tflite
from convmixer_tf.export.tflite import QUANTIZATIONS
from convmixer_tf.files import check_destination

SCHEMES = {name or "float32": name for name in QUANTIZATIONS}

flags.adopt_module_key_flags(export_flags)
flags.adopt_module_key_flags(calibration_flags)
_SCHEME = flags.DEFINE_multi_enum(
    "scheme", ["float16", "dynamic"], list(SCHEMES), "Number format; repeat."
)
_OUTPUT_DTYPE = flags.DEFINE_enum(
    "output_dtype", "float32", ["float32", "uint8"], "What int8 files return."
)
_DESCRIPTION = flags.DEFINE_string(
    "description", "", "What the model does, for the file's metadata."
)
_PLAIN = flags.DEFINE_bool(
    "plain", False, "Convert the model as it is, to compare with."
)
flags.mark_flags_as_required(["model", "output"])


def export(scheme, path, model, names, samples, images):
    """Writes, verifies and moves into place one file.

    Returns:
        A `Report`, or `None` with `--noverify`.
    """
    int8 = scheme == "int8"

    def write(unfinished):
        export_tflite(
            model,
            unfinished,
            quantization=SCHEMES[scheme],
            calibration_images=images if int8 else None,
            output_dtype=_OUTPUT_DTYPE.value if int8 else "float32",
            class_names=names,
            description=_DESCRIPTION.value,
            crop_fraction=export_flags.CROP.value,
            orientation=export_flags.ORIENTATION.value,
            plain=_PLAIN.value,
        )

    kind = f"a TFLite file ({scheme})"
    return export_flags.finish(
        kind, write, model, names, path=path, samples=samples
    )


def print_table(reports):
    """Prints one line for each file."""
    rows = [("scheme", "kB", "agreement", "top-1")]
    for scheme, report in reports.items():
        accuracy = report.accuracy and f"{report.accuracy['artifact']:.2%}"
        agreement = report.agreement
        rows.append(
            (
                scheme,
                f"{report.size / 1e3:.0f}",
                "-" if agreement is None else f"{agreement:.2%}",
                accuracy or "-",
            )
        )
    export_flags.print_table(rows)


def main(argv):
    """Exports the model that the flags name, in every scheme."""
    export_flags.begin(argv)
    folder = export_flags.OUTPUT.value
    with export_flags.errors_end_it(os.path.join(folder, "file")):
        model, names = export_flags.load_model()
        paths = {
            scheme: os.path.join(folder, f"{model.name}_{scheme}.tflite")
            for scheme in _SCHEME.value
        }
        for path in paths.values():
            check_destination(path, (".tflite",), export_flags.OVERWRITE.value)
        samples = images = None
        if export_flags.VERIFY.value:
            samples = export_flags.load_images(model, names)
        if "int8" in paths:
            images = calibration_flags.load_images(model, samples)
        reports, failures = {}, []
        for number, (scheme, path) in enumerate(paths.items(), 1):
            logging.info("%d of %d: %s", number, len(paths), scheme)
            try:
                report = export(scheme, path, model, names, samples, images)
            except ValueError as error:  # The others may be right.
                failures.append(str(error))
                continue
            if report:
                reports[scheme] = report
        if reports:
            print_table(reports)
        if failures:
            raise ValueError(" ".join(failures))


if __name__ == "__main__":
    app.run(main)
