"""Files on disk in, batches of pixels and labels out."""

from convmixer_tf.data.augmentation import AUGMENTATIONS
from convmixer_tf.data.augmentation import Augmentation
from convmixer_tf.data.augmentation import get_augmentation
from convmixer_tf.data.color_jitter import ColorJitter
from convmixer_tf.data.color_jitter import color_jitter
from convmixer_tf.data.contact_sheet import save_contact_sheet
from convmixer_tf.data.cropping import CROP_FRACTION
from convmixer_tf.data.cropping import PadAndCrop
from convmixer_tf.data.cropping import RandomResizedCrop
from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.data.datasets import ImageList
from convmixer_tf.data.datasets import open_dataset
from convmixer_tf.data.decoding import ORIENTATION
from convmixer_tf.data.decoding import decode_image
from convmixer_tf.data.erasing import RandomErasing
from convmixer_tf.data.erasing import random_erase
from convmixer_tf.data.evaluation import evaluation_batches
from convmixer_tf.data.light import KerasCV
from convmixer_tf.data.light import keras_cv_augment
from convmixer_tf.data.loading import Shard
from convmixer_tf.data.mixing import Mixing
from convmixer_tf.data.mixing import mix
from convmixer_tf.data.mixing import smooth_labels
from convmixer_tf.data.rand_augment import RandAugment
from convmixer_tf.data.rand_augment import rand_augment
from convmixer_tf.data.records import ImageRecords
from convmixer_tf.data.samples import open_files
from convmixer_tf.data.samples import open_unlabeled
from convmixer_tf.data.samples import read_images
from convmixer_tf.data.splits import Splits
from convmixer_tf.data.splits import open_splits
from convmixer_tf.data.training import train_batches
from convmixer_tf.data.unreadable import why_unreadable
from convmixer_tf.deprecation import renamed

__all__ = [
    "AUGMENTATIONS",
    "CROP_FRACTION",
    "ORIENTATION",
    "Augmentation",
    "ColorJitter",
    "ImageList",
    "ImageRecords",
    "KerasCV",
    "Mixing",
    "PadAndCrop",
    "RandAugment",
    "RandomErasing",
    "RandomResizedCrop",
    "Shard",
    "Splits",
    "color_jitter",
    "decode_image",
    "evaluation_batches",
    "get_augmentation",
    "keras_cv_augment",
    "mix",
    "open_dataset",
    "open_files",
    "open_splits",
    "open_unlabeled",
    "rand_augment",
    "random_erase",
    "read_images",
    "resize_and_center_crop",
    "save_contact_sheet",
    "smooth_labels",
    "train_batches",
    "why_unreadable",
]

__getattr__ = renamed(
    __name__,
    {
        "RECIPES": "AUGMENTATIONS",
        "Recipe": "Augmentation",
        "get_recipe": "get_augmentation",
        "open_unlabelled": "open_unlabeled",
    },
)
