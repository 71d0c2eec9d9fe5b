"""Exports a ConvMixer for the web page and verifies it in LiteRT.

    convmixer export web --model runs/mine/model.keras \
        --output export/web/dist/model --images FOLDER --quantization dynamic

`--images` are real images for the comparison: a folder `split/class/*.jpg`, a
name in tensorflow-datasets, or a folder of images. `--calibration` are other
images for int8. A folder with `model.tflite` and `model.json` appears if the
outputs match the model's. See `export/web/README.md` for how to build the page.
The report and the card are written beside the folder. If it is in `public` or
`dist`, which are published, they are written beside these.

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

# Vite copies the first into the second, which a web server publishes.
_PUBLISHED = ("public", "dist")

_QUANTIZATION = flags.DEFINE_enum(
    "quantization", "dynamic", QUANTIZATIONS, "Number format."
)
_DESCRIPTION = flags.DEFINE_string(
    "description", "", "Description of the model that the page shows."
)
flags.DEFINE_alias("scheme", "quantization")  # Its deprecated name.
flags.mark_flags_as_required(["model", "output"])


def unpublished(path):
    """Returns a path of the same name outside of published folders."""
    path = pathlib.Path(path).absolute()
    folder = path.parent
    return (folder.parent if folder.name in _PUBLISHED else folder) / path.name


def main(argv):
    """Exports the model."""
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
