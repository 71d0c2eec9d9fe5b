"""Exports a ConvMixer as TFLite files and verifies them in LiteRT.

    convmixer export tflite --model runs/mine/model.keras \
        --output runs/mine --images FOLDER --calibration FOLDER \
        --quantization float16 --quantization dynamic --quantization int8

`--images` are real images for the comparison, `--calibration` other images for
int8. Each is a folder `split/class/*.jpg`, a name in tensorflow-datasets, or a
folder of images. A file for each number format appears in `--output`, named
after the model and the format, with a report beside it, if its outputs match
the model's.

Time: for each format the conversion (seconds; minutes for the large variants)
and a forward pass over the images. Results: `results/tflite_cifar10_*.json`.
"""

import os

from absl import flags
from absl import logging

from convmixer_tf.cli import calibration_flags
from convmixer_tf.cli import export_flags
from convmixer_tf.export import export_tflite
from convmixer_tf.export.tflite import QUANTIZATIONS
from convmixer_tf.files import check_destination

flags.adopt_module_key_flags(export_flags)
flags.adopt_module_key_flags(calibration_flags)
_QUANTIZATION = flags.DEFINE_multi_enum(
    "quantization",
    ["float16", "dynamic"],
    QUANTIZATIONS,
    "Number format; repeatable.",
)
_OUTPUT_DTYPE = flags.DEFINE_enum(
    "output_dtype",
    "float32",
    ["float32", "uint8"],
    "Output type of int8 files.",
)
_DESCRIPTION = flags.DEFINE_string(
    "description", "", "Description of the model, for the file's metadata."
)
_PLAIN = flags.DEFINE_bool(
    "plain", False, "Convert the model unchanged, as a baseline."
)
flags.DEFINE_alias("scheme", "quantization")  # Its deprecated name.
flags.mark_flags_as_required(["model", "output"])


def export(quantization, path, model, names, samples, images):
    """Writes and verifies one file.

    Returns:
        A `Report`, or `None` with `--noverify`.
    """
    int8 = quantization == "int8"

    def write(unfinished):
        export_tflite(
            model,
            unfinished,
            quantization=quantization,
            calibration_images=images if int8 else None,
            output_dtype=_OUTPUT_DTYPE.value if int8 else "float32",
            class_names=names,
            description=_DESCRIPTION.value,
            crop_fraction=export_flags.CROP.value,
            orientation=export_flags.ORIENTATION.value,
            plain=_PLAIN.value,
        )

    kind = f"a TFLite file ({quantization})"
    return export_flags.finish(
        kind, write, model, names, path=path, samples=samples
    )


def print_table(reports):
    """Prints one line for each file."""
    rows = [("quantization", "kB", "agreement", "top-1")]
    for quantization, report in reports.items():
        accuracy = report.accuracy and f"{report.accuracy['artifact']:.2%}"
        agreement = report.agreement
        rows.append(
            (
                quantization,
                f"{report.size / 1e3:.0f}",
                "-" if agreement is None else f"{agreement:.2%}",
                accuracy or "-",
            )
        )
    export_flags.print_table(rows)


def main(argv):
    """Exports the model in all requested number formats."""
    export_flags.begin(argv)
    folder = export_flags.OUTPUT.value
    with export_flags.errors_end_it(os.path.join(folder, "file")):
        model, names = export_flags.load_model()
        paths = {
            quantization: os.path.join(
                folder, f"{model.name}_{quantization}.tflite"
            )
            for quantization in _QUANTIZATION.value
        }
        for path in paths.values():
            check_destination(path, (".tflite",), export_flags.OVERWRITE.value)
        samples = images = None
        if export_flags.VERIFY.value:
            samples = export_flags.load_images(model, names)
        if "int8" in paths:
            images = calibration_flags.load_images(model, samples)
        reports, failures = {}, []
        for number, (quantization, path) in enumerate(paths.items(), 1):
            logging.info("%d of %d: %s", number, len(paths), quantization)
            try:
                report = export(
                    quantization, path, model, names, samples, images
                )
            except ValueError as error:  # Continue with the other formats.
                failures.append(str(error))
                continue
            if report:
                reports[quantization] = report
        if reports:
            print_table(reports)
        if failures:
            raise ValueError(" ".join(failures))
