"""Reads image files into batches of pixels and labels."""

from convmixer_tf.data.augmentation import Augmentation
from convmixer_tf.data.augmentation import get_augmentation
from convmixer_tf.data.color_jitter import ColorJitter
from convmixer_tf.data.color_jitter import color_jitter  # noqa: F401
from convmixer_tf.data.contact_sheet import save_contact_sheet
from convmixer_tf.data.cropping import PadAndCrop
from convmixer_tf.data.cropping import RandomResizedCrop
from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.data.datasets import hold_out
from convmixer_tf.data.datasets import open_dataset
from convmixer_tf.data.decoding import decode_image
from convmixer_tf.data.erasing import RandomErasing
from convmixer_tf.data.evaluation import evaluation_batches
from convmixer_tf.data.mixing import Mixing
from convmixer_tf.data.rand_augment import RandAugment
from convmixer_tf.data.rand_augment import rand_augment  # noqa: F401
from convmixer_tf.data.samples import open_unlabeled
from convmixer_tf.data.samples import read_images
from convmixer_tf.data.splits import open_splits
from convmixer_tf.data.training import train_batches
from convmixer_tf.deprecation import renamed

__all__ = [
    "Augmentation",
    "ColorJitter",
    "Mixing",
    "PadAndCrop",
    "RandAugment",
    "RandomErasing",
    "RandomResizedCrop",
    "decode_image",
    "evaluation_batches",
    "get_augmentation",
    "hold_out",
    "open_dataset",
    "open_splits",
    "open_unlabeled",
    "read_images",
    "resize_and_center_crop",
    "save_contact_sheet",
    "train_batches",
]

__getattr__ = renamed(
    __name__,
    {
        "CROP_FRACTION": "cropping.CROP_FRACTION",
        "ImageList": "datasets.ImageList",
        "ImageRecords": "records.ImageRecords",
        "KerasCV": "light.KerasCV",
        "Shard": "loading.Shard",
        "keras_cv_augment": "light.keras_cv_augment",
        "mix": "mixing.mix",
        "open_files": "samples.open_files",
        "random_erase": "erasing.random_erase",
        "smooth_labels": "mixing.smooth_labels",
        "why_unreadable": "unreadable.why_unreadable",
        "RECIPES": "augmentation.AUGMENTATIONS",
        "Recipe": "Augmentation",
        "get_recipe": "get_augmentation",
        "open_unlabelled": "open_unlabeled",
    },
)
