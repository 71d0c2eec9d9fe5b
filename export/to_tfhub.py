"""Exports a model as a TF Hub module that can be fine-tuned.

    python export/to_tfhub.py --model 768_32 --kind feature_vector \
        --output runs/hub/convmixer_768_32

Writes a folder with `saved_model/`, `model.tar.gz` and `README.md`, see
`convmixer_tf.export.export_tfhub`. The module is compared with the Keras model
before it appears. Time: seconds, and a forward pass over the images, twice.
"""

import os
import sys

import keras
import model_flags
import tensorflow as tf
from absl import app
from absl import flags

from convmixer_tf import export
from convmixer_tf.export import tfhub
from convmixer_tf.export.preparation import classifier_of
from convmixer_tf.export.preparation import in_float32
from convmixer_tf.files import check_folder_destination
from convmixer_tf.files import replaced_folder
from convmixer_tf.weights import PUBLISHED_WEIGHTS

_KIND = flags.DEFINE_enum(
    "kind", "classifier", tfhub.KINDS, "What the module returns."
)
_MAX_PIXEL = flags.DEFINE_enum(
    "max_pixel", "255", ["255", "1"], "What white is; 1 is TF Hub's convention."
)
_PUBLISHER = flags.DEFINE_string(
    "publisher", "convmixer_tf", "Who publishes the module."
)
_VERSION = flags.DEFINE_integer("module_version", 1, "Version of the module.")
_ASSET_PATH = flags.DEFINE_string(
    "asset_path", tfhub.ARCHIVE, "URL at which the archive will be served."
)
_DATASET = flags.DEFINE_string("dataset", None, "What it was trained on.")
_LICENSE = flags.DEFINE_string("license", None, "Licence of the weights.")


def module_card(model):
    """Collects what the module's page says.

    Args:
        model: The `keras.Model`.

    Returns:
        A `HubCard`. If the weights are a fetched variant's, with what is
        published about them.
    """
    common = {
        "handle": f"{_PUBLISHER.value}/{model.name}/{_KIND.value}/"
        f"{_VERSION.value}",
        "asset_path": _ASSET_PATH.value,
    }
    published = PUBLISHED_WEIGHTS.get(f"convmixer_{flags.FLAGS.model}")
    if published is None:
        return export.HubCard(
            **common, dataset=_DATASET.value, license=_LICENSE.value
        )
    return export.HubCard(
        **common,
        description=f"ConvMixer-{published.dim}/{published.depth}, trained on "
        "ImageNet-1k.",
        dataset=_DATASET.value or "imagenet-ilsvrc-2012-cls",
        license=_LICENSE.value or published.license.lower(),
        notes=f"Weights: {published.repository} on the Hugging Face hub. "
        f"Published ImageNet accuracy at 224 x 224\n(timm's table, not "
        f"measured with this module): top-1 {published.top1} %, top-5 "
        f"{published.top5} %.",
    )


def compare(model, path):
    """Compares the module with the Keras model.

    Args:
        model: The `keras.Model`.
        path: Path of the module's SavedModel.

    Returns:
        Float, the largest difference.
    """
    _, pixels = model_flags.sample_images(model)
    pixels = pixels.astype("float32")
    module = tf.saved_model.load(path)
    scale = int(_MAX_PIXEL.value) / 255
    reference, finish = in_float32(model), tf.identity
    classifier = classifier_of(reference)
    if _KIND.value == "classifier":
        finish = classifier.activation
    elif classifier:
        features = reference.get_layer("avg_pool").output
        reference = keras.Model(reference.input, features)
    return model_flags.compare(
        "The module",
        lambda images: finish(module(images * scale)).numpy(),
        pixels,
        reference.predict(pixels, 16, verbose=0),
    )


def main(argv):
    """Exports the model that the flags name."""
    model_flags.begin(argv)
    path = model_flags.OUTPUT.value
    try:
        check_folder_destination(path, tfhub.MARK, model_flags.OVERWRITE.value)
        model, class_names = model_flags.load_model()
        with replaced_folder(path) as unfinished:
            model_flags.tell(f"Exporting to {path}")
            export.export_tfhub(
                model,
                unfinished,
                kind=_KIND.value,
                max_pixel=int(_MAX_PIXEL.value),
                class_names=class_names,
                card=module_card(model),
            )
            difference = compare(
                model, os.path.join(unfinished, tfhub.SAVED_MODEL)
            )
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    rows = [("what", "size")]
    for name in (tfhub.SAVED_MODEL, tfhub.ARCHIVE, tfhub.CARD):
        rows.append((name, model_flags.size_of(os.path.join(path, name))))
    model_flags.print_table(rows)
    print(f"{path}: differs from Keras by {difference:.1e} at most")


if __name__ == "__main__":
    app.run(main)
