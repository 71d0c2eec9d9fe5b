"""Exports a ConvMixer as an ONNX file and verifies it in onnxruntime.

    convmixer export onnx --model runs/mine/model.keras \
        --output runs/mine/model.onnx --images FOLDER

`--images` are real images for the comparison: a folder `split/class/*.jpg`, a
name in tensorflow-datasets, or a folder of images. The file appears, with a
report beside it, only if its outputs match the model's. `--quantization int8`
needs other images for the ranges, `--calibration`.

Time: seconds, plus a forward pass of each over the images.
"""

from absl import flags

from convmixer_tf.cli import calibration_flags
from convmixer_tf.cli import export_flags
from convmixer_tf.export import export_onnx
from convmixer_tf.export.onnx_export import ONNX_QUANTIZATIONS
from convmixer_tf.export.onnx_export import PIXELS
from convmixer_tf.export.preparation import classifier_of
from convmixer_tf.files import check_destination

flags.adopt_module_key_flags(export_flags)
flags.adopt_module_key_flags(calibration_flags)
_DYNAMIC = flags.DEFINE_bool(
    "dynamic_batch", True, "Whether the file takes any batch size, or only 1."
)
_PIXELS = flags.DEFINE_enum("pixels", "float32", PIXELS, "Type of the input.")
_QUANTIZATION = flags.DEFINE_enum(
    "quantization", "float32", ONNX_QUANTIZATIONS, "Number format."
)
_PLAIN = flags.DEFINE_bool(
    "plain", False, "Convert the model unchanged; for any Keras model."
)
flags.mark_flags_as_required(["model", "output"])


def main(argv):
    """Exports the model."""
    export_flags.begin(argv)
    with export_flags.errors_end_it():
        check_destination(
            export_flags.OUTPUT.value, (".onnx",), export_flags.OVERWRITE.value
        )
        model, names = export_flags.load_model()
        samples = images = None
        if export_flags.VERIFY.value:
            samples = export_flags.load_images(model, names)
        if _QUANTIZATION.value == "int8":
            images = calibration_flags.load_images(model, samples)

        def write(path):
            export_onnx(
                model,
                path,
                dynamic_batch=_DYNAMIC.value,
                pixels=_PIXELS.value,
                class_names=names if classifier_of(model) else None,
                quantization=_QUANTIZATION.value,
                calibration_images=images,
                plain=_PLAIN.value,
            )

        export_flags.finish(
            "an ONNX file", write, model, names, samples=samples
        )
