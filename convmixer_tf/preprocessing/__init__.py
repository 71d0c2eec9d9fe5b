"""Pixels in, names out: ImageNet constants, preprocessing and labels."""

from convmixer_tf.preprocessing.class_matching import match_classes
from convmixer_tf.preprocessing.imagenet import IMAGENET_MEAN
from convmixer_tf.preprocessing.imagenet import IMAGENET_STD
from convmixer_tf.preprocessing.imagenet import decode_predictions
from convmixer_tf.preprocessing.imagenet import imagenet_classes
from convmixer_tf.preprocessing.imagenet import normalize
from convmixer_tf.preprocessing.imagenet import preprocess_input

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "decode_predictions",
    "imagenet_classes",
    "match_classes",
    "normalize",
    "preprocess_input",
]
