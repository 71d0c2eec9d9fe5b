"""Exports a model as a TF Hub module that can be fine-tuned.

    convmixer export tfhub --model runs/mine/model.keras \
        --output runs/mine/module --images FOLDER --kind feature_vector

The command writes a folder with `saved_model/`, `model.tar.gz` and `README.md`;
see `convmixer_tf.export.export_tfhub`. `--images` are real images for the
comparison: a folder `split/class/*.jpg`, a name in tensorflow-datasets, or a
folder of images. The module appears, with a report beside it, only if its
outputs match the model's in a process without this package.

Time: seconds, plus a forward pass of each over the images.
"""

import os

import keras
from absl import flags

from convmixer_tf.cli import export_flags
from convmixer_tf.export import HubCard
from convmixer_tf.export import export_tfhub
from convmixer_tf.export.preparation import classifier_of
from convmixer_tf.export.preparation import rebuilt
from convmixer_tf.export.tfhub import ARCHIVE
from convmixer_tf.export.tfhub import CARD
from convmixer_tf.export.tfhub import KINDS
from convmixer_tf.export.tfhub import MARK
from convmixer_tf.export.tfhub import SAVED_MODEL
from convmixer_tf.files import check_folder_destination
from convmixer_tf.files import replaced_folder
from convmixer_tf.files import size_of

# TF Hub's names of the data sets.
_DATASETS = {"imagenet": "imagenet-ilsvrc-2012-cls", "cifar10": "cifar-10"}

flags.adopt_module_key_flags(export_flags)
_KIND = flags.DEFINE_enum("kind", "classifier", KINDS, "Kind of the module.")
_MAX_PIXEL = flags.DEFINE_enum(
    "max_pixel",
    "255",
    ["255", "1"],
    "Value of white. 1 is TF Hub's convention.",
)
_PUBLISHER = flags.DEFINE_string(
    "publisher", "convmixer_tf", "Publisher of the module."
)
_VERSION = flags.DEFINE_integer("module_version", 1, "Version of the module.")
_ASSET_PATH = flags.DEFINE_string(
    "asset_path", ARCHIVE, "URL at which the archive will be served."
)
flags.mark_flags_as_required(["model", "output"])


def module_card(model):
    """Collects the content of the module's page.

    Args:
        model: The `keras.Model`.

    Returns:
        A `HubCard`. For published weights, it has their published description.
    """
    common = {
        "handle": f"{_PUBLISHER.value}/{model.name}/{_KIND.value}/"
        f"{_VERSION.value}",
        "asset_path": _ASSET_PATH.value,
    }
    dataset, license = flags.FLAGS.dataset, flags.FLAGS.license
    published = export_flags.published_weights()
    if published is None:
        return HubCard(**common, dataset=dataset, license=license)
    return HubCard(
        **common,
        description=f"ConvMixer-{published.dim}/{published.depth}, trained on "
        f"{export_flags.DATASETS[published.dataset]}.",
        dataset=dataset or _DATASETS[published.dataset],
        license=license or published.license.lower(),
        notes=export_flags.published_accuracy(),
    )


def reference(model):
    """Builds a Keras model with the module's output, logits or features."""
    classifier = classifier_of(model)
    if _KIND.value == "classifier":
        return rebuilt(
            model,
            lambda layer: (
                {"activation": "linear"} if layer is classifier else {}
            ),
        )
    pooling = {layer.name: layer for layer in model.layers}.get("avg_pool")
    return keras.Model(model.input, pooling.output) if pooling else model


def main(argv):
    """Exports the model."""
    export_flags.begin(argv)
    path = export_flags.OUTPUT.value
    max_pixel = int(_MAX_PIXEL.value)
    with export_flags.errors_end_it():
        check_folder_destination(path, MARK, export_flags.OVERWRITE.value)
        model, names = export_flags.load_model(any_size=True)

        def write(unfinished):
            export_tfhub(
                model,
                unfinished,
                kind=_KIND.value,
                max_pixel=max_pixel,
                class_names=names,
                crop_fraction=export_flags.CROP.value,
                orientation=export_flags.ORIENTATION.value,
                card=module_card(model),
            )

        export_flags.finish(
            f"a TF Hub module ({_KIND.value})",
            write,
            reference(model),
            names,
            appear=replaced_folder,
            inside=SAVED_MODEL,
            max_pixel=max_pixel,
        )
    parts = [os.path.join(path, name) for name in (SAVED_MODEL, ARCHIVE, CARD)]
    export_flags.print_table(
        [
            ("part", "bytes"),
            *((part, f"{size_of(part):,}") for part in parts),
        ]
    )
