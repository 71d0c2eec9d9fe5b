"""Exports a model as a SavedModel for TensorFlow Serving and the like.

    python export/to_saved_model.py --model runs/mine/model.keras \
        --output runs/mine/saved_model --images photos

Signatures for float pixels, uint8 pixels and encoded JPEG or PNG files, see
`convmixer_tf.export.export_saved_model`. It is compared with the Keras model
before it appears. Time: seconds, and a forward pass over the images, four
times.
"""

import sys

import model_flags
import tensorflow as tf
from absl import app
from absl import flags

from convmixer_tf import data
from convmixer_tf import export
from convmixer_tf.export.preparation import in_float32
from convmixer_tf.export.saved_model import SAVED_MODEL_FILE
from convmixer_tf.files import check_folder_destination
from convmixer_tf.files import replaced_folder

_TOP = flags.DEFINE_integer("top", 5, "How many of the best classes to name.")
_CROP = flags.DEFINE_float(
    "crop_fraction", data.CROP_FRACTION, "Part of an image's side to keep."
)


def compare(model, path):
    """Compares each signature with the Keras model.

    Args:
        model: The `keras.Model`.
        path: Path of the SavedModel.

    Returns:
        Rows of a table: signature, inputs, outputs, largest difference.
    """
    loaded = tf.saved_model.load(path)
    files, pixels = model_flags.sample_images(model, _CROP.value)
    expected = in_float32(model).predict(
        pixels.astype("float32"), 16, verbose=0
    )
    inputs = {
        "serving_default": ("images", pixels.astype("float32")),
        "serve_uint8": ("images", pixels),
        "serve_encoded": ("image_bytes", files),
    }
    rows = [("signature", "inputs", "outputs", "largest difference")]
    for name, function in loaded.signatures.items():
        key, values = inputs[name]
        outputs = sorted(function.structured_outputs)
        output = "predictions" if "predictions" in outputs else "features"

        def run(batch, function=function, key=key, output=output):
            return function(**{key: tf.constant(batch)})[output].numpy()

        difference = model_flags.compare(name, run, values, expected)
        rows.append((name, key, ", ".join(outputs), f"{difference:.1e}"))
    return rows


def main(argv):
    """Exports the model that the flags name."""
    model_flags.begin(argv)
    path = model_flags.OUTPUT.value
    try:
        check_folder_destination(
            path, SAVED_MODEL_FILE, model_flags.OVERWRITE.value
        )
        model, class_names = model_flags.load_model()
        with replaced_folder(path) as unfinished:
            model_flags.tell(f"Exporting to {path}")
            export.export_saved_model(
                model,
                unfinished,
                class_names=class_names,
                top=_TOP.value,
                image_size=model_flags.image_size(model),
                crop_fraction=_CROP.value,
            )
            rows = compare(model, unfinished)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    model_flags.print_table(rows)
    print(f"{path}: {model_flags.size_of(path)}")


if __name__ == "__main__":
    app.run(main)
