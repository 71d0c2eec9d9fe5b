"""Exports a ConvMixer for the web page, compared in LiteRT.

    convmixer export web --model runs/mine/model.keras \
        --output export/web/dist/model --images FOLDER --quantization dynamic

`--images` are real ones to compare on: a folder `split/class/*.jpg`, a name
in tensorflow-datasets, or a folder of images; `--calibration` are others, for
int8. A folder of `model.tflite` and `model.json` appears if the file does what
the model does. `export/web/README.md` says how to build the page. The report
and the card lie beside the folder, or beside `public` or `dist` if it is in one
of these, which are published.

Time: the conversion (seconds; minutes for the large variants) and a forward
pass over the images.
"""

import pathlib

from absl import flags

from convmixer_tf.cli import calibration_flags
from convmixer_tf.cli import export_flags
from convmixer_tf.export import export_web
from convmixer_tf.export.tflite import QUANTIZATIONS
from convmixer_tf.export.web import DESCRIPTION_FILE
from convmixer_tf.export.web import MODEL_FILE
from convmixer_tf.files import check_folder_destination
from convmixer_tf.files import replaced_folder

# Vite copies the one into the other, which is what a web server gets.
_PUBLISHED = ("public", "dist")

_QUANTIZATION = flags.DEFINE_enum(
    "quantization", "dynamic", QUANTIZATIONS, "Number format."
)
_DESCRIPTION = flags.DEFINE_string(
    "description", "", "What the model does, for the page to show."
)
flags.DEFINE_alias("scheme", "quantization")  # Its deprecated name.
flags.mark_flags_as_required(["model", "output"])


def unpublished(path):
    """Returns a path of that name that is not in a published folder."""
    path = pathlib.Path(path).absolute()
    folder = path.parent
    return (folder.parent if folder.name in _PUBLISHED else folder) / path.name


def main(argv):
    """Exports the model that the flags name."""
    export_flags.begin(argv)
    with export_flags.errors_end_it():
        check_folder_destination(
            export_flags.OUTPUT.value,
            DESCRIPTION_FILE,
            export_flags.OVERWRITE.value,
        )
        model, names = export_flags.load_model()
        samples = calibration = None
        if export_flags.VERIFY.value:
            samples = export_flags.load_images(model, names)
        if _QUANTIZATION.value == "int8":
            calibration = calibration_flags.load_images(model, samples)

        def write(path):
            export_web(
                model,
                path,
                names,
                quantization=_QUANTIZATION.value,
                calibration_images=calibration,
                description=_DESCRIPTION.value,
                crop_fraction=export_flags.crop_fraction(),
                orientation=export_flags.ORIENTATION.value,
            )

        export_flags.finish(
            f"a folder for the web page ({_QUANTIZATION.value})",
            write,
            model,
            names,
            beside=unpublished(export_flags.OUTPUT.value),
            samples=samples,
            appear=replaced_folder,
            inside=MODEL_FILE,
        )
