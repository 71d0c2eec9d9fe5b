"""Exports a model as a TF Hub module that can be fine-tuned.

    convmixer export tfhub --model runs/mine/model.keras \
        --output runs/mine/module --images FOLDER --kind feature_vector

Writes a folder with `saved_model/`, `model.tar.gz` and `README.md`, see
`convmixer_tf.export.export_tfhub`. `--images` are real ones to compare on: a
folder `split/class/*.jpg`, a name in tensorflow-datasets, or a folder of
images. The module appears, with its report beside it, only if it does what the
model does, in a process that does not know this package.

Time: seconds, and a forward pass of each over the images.
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

# What TF Hub calls them.
_DATASETS = {"imagenet": "imagenet-ilsvrc-2012-cls", "cifar10": "cifar-10"}

flags.adopt_module_key_flags(export_flags)
_KIND = flags.DEFINE_enum(
    "kind", "classifier", KINDS, "What the module returns."
)
_MAX_PIXEL = flags.DEFINE_enum(
    "max_pixel", "255", ["255", "1"], "What white is; 1 is TF Hub's convention."
)
_PUBLISHER = flags.DEFINE_string(
    "publisher", "convmixer_tf", "Who publishes the module."
)
_VERSION = flags.DEFINE_integer("module_version", 1, "Version of the module.")
_ASSET_PATH = flags.DEFINE_string(
    "asset_path", ARCHIVE, "URL at which the archive will be served."
)
flags.mark_flags_as_required(["model", "output"])


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
    """Builds the Keras model of what the module gives: logits, or features."""
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
    """Exports the model that the flags name."""
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
