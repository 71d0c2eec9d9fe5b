"""Exports a model as a SavedModel, for example for TensorFlow Serving.

    convmixer export saved_model --model runs/mine/model.keras \
        --output runs/mine/saved_model --images FOLDER

It has signatures for float pixels, uint8 pixels and encoded JPEG or PNG files;
see `convmixer_tf.export.export_saved_model`. `--images` are real images for the
comparison: a folder `split/class/*.jpg`, a name in tensorflow-datasets, or a
folder of images. The SavedModel appears, with a report beside it, only if its
outputs match the model's in a process without this package.

Time: seconds, plus a forward pass of each over the images.
"""

import numpy as np
import tensorflow as tf
from absl import flags

from convmixer_tf import data
from convmixer_tf.cli import export_flags
from convmixer_tf.export import export_saved_model
from convmixer_tf.export.preparation import in_float32
from convmixer_tf.export.saved_model import SAVED_MODEL_FILE
from convmixer_tf.files import check_folder_destination
from convmixer_tf.files import replaced_folder

# Maximum difference of two runs of one float32 graph, as a fraction of the
# largest output.
TOLERANCE = 1e-5
# Number of images for the signatures that `verify` does not check.
IMAGES = 32

flags.adopt_module_key_flags(export_flags)
_TOP = flags.DEFINE_integer("top", 5, "Number of top classes to return.")
flags.mark_flags_as_required(["model", "output"])


def encode(images):
    """Encodes each image, alternating JPEG and PNG."""
    kinds = (tf.io.encode_jpeg, tf.io.encode_png)
    return [kinds[i % 2](image).numpy() for i, image in enumerate(images)]


def pixels_of(encoded, size):
    """Resizes files to the model's size, outside of the SavedModel."""
    fraction = export_flags.crop_fraction()
    return np.stack(
        [
            data.resize_and_center_crop(
                data.decode_image(file), size, fraction
            ).numpy()
            for file in encoded
        ]
    )


def compare(name, signature, inputs, expected):
    """Compares a signature with the Keras model.

    Args:
        name: Name of the signature.
        signature: Function of one keyword argument.
        inputs: Array or list, a batch for the signature.
        expected: Array, the model's outputs.

    Returns:
        Float, the maximum difference as a fraction of the largest output.

    Raises:
        ValueError: If it is above `TOLERANCE`.
    """
    ((argument, _),) = signature.structured_input_signature[1].items()
    found = signature(**{argument: tf.constant(inputs)})
    output = found["predictions" if "predictions" in found else "features"]
    difference = np.abs(output - expected).max() / np.abs(expected).max()
    if not difference <= TOLERANCE:
        raise ValueError(
            f"{name} differs from the Keras model by {difference:.2g} of the "
            f"largest output, more than {TOLERANCE:g}. Nothing was written."
        )
    return float(difference)


def compare_others(model, path, images):
    """Compares the signatures for uint8 pixels and for files.

    Args:
        model: The `keras.Model`.
        path: Path of the SavedModel.
        images: uint8 array of pixels.

    Returns:
        Dictionary from each signature's name to the maximum difference.
    """
    model = in_float32(model)
    signatures = tf.saved_model.load(path).signatures
    # The model's batch size, if it is fixed.
    images = images[: model.input_shape[0] or IMAGES]
    encoded = encode(images)
    inputs = {
        "serve_uint8": (images, images),
        "serve_encoded": (encoded, pixels_of(encoded, images.shape[1])),
    }
    return {
        name: compare(
            name,
            signatures[name],
            given,
            model.predict_on_batch(np.float32(pixels)),
        )
        for name, (given, pixels) in inputs.items()
    }


def main(argv):
    """Exports the model."""
    export_flags.begin(argv)
    differences = {}
    with export_flags.errors_end_it():
        check_folder_destination(
            export_flags.OUTPUT.value,
            SAVED_MODEL_FILE,
            export_flags.OVERWRITE.value,
        )
        model, names = export_flags.load_model(any_size=True)

        def write(path):
            export_saved_model(
                model,
                path,
                class_names=names,
                top=_TOP.value,
                image_size=export_flags.side(model),
                crop_fraction=export_flags.CROP.value,
                orientation=export_flags.ORIENTATION.value,
            )

        def confirm(path, images):
            differences.update(compare_others(model, path, images))

        export_flags.finish(
            "a SavedModel",
            write,
            model,
            names,
            appear=replaced_folder,
            confirm=confirm,
        )
    if differences:
        export_flags.print_table(
            [
                ("signature", "difference relative to the largest output"),
                *((name, f"{x:.2g}") for name, x in differences.items()),
            ]
        )
