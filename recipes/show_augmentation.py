"""Draws the effect of an augmentation on images, stage by stage.

    python recipes/show_augmentation.py --data digits --augmentation imagenet \
        --image_size 32 --output sheet.png

Each row adds a stage. The mixed label is below each image. `--data` is an
argument of `open_dataset`. Time: ten seconds.
"""

from absl import app
from absl import flags

from convmixer_tf.data import get_augmentation
from convmixer_tf.data import open_dataset
from convmixer_tf.data import save_contact_sheet
from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced

_DATA = flags.DEFINE_string("data", "digits", "Data set or folder.")
_SPLIT = flags.DEFINE_string("split", "train", "Split.")
_AUGMENTATION = flags.DEFINE_enum(
    "augmentation",
    "imagenet",
    ["imagenet", "cifar10", "light", "keras_cv", "none"],
    "Augmentation.",
)
flags.DEFINE_alias("recipe", "augmentation")  # Its deprecated name.
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "Side, in pixels.")
_COLUMNS = flags.DEFINE_integer("columns", 8, "Number of images.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of all randomness.")
_OUTPUT = flags.DEFINE_string("output", None, "PNG to write.", required=True)


def main(argv):
    """Writes the contact sheet."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    check_destination(_OUTPUT.value, (".png",), overwrite=True)
    with replaced(_OUTPUT.value) as unfinished:
        save_contact_sheet(
            unfinished,
            open_dataset(_DATA.value, _SPLIT.value),
            get_augmentation(_AUGMENTATION.value),
            _IMAGE_SIZE.value,
            columns=_COLUMNS.value,
            seed=_SEED.value,
        )


if __name__ == "__main__":
    app.run(main)
