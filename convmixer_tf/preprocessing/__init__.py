"""Pixels in, names out: constants of data sets, preprocessing and labels."""

from convmixer_tf.preprocessing.cifar10 import CIFAR10_CLASSES
from convmixer_tf.preprocessing.cifar10 import CIFAR10_MEAN
from convmixer_tf.preprocessing.cifar10 import CIFAR10_STD
from convmixer_tf.preprocessing.class_matching import match_classes
from convmixer_tf.preprocessing.decoding import class_names
from convmixer_tf.preprocessing.decoding import decode_predictions
from convmixer_tf.preprocessing.imagenet import IMAGENET_MEAN
from convmixer_tf.preprocessing.imagenet import IMAGENET_STD
from convmixer_tf.preprocessing.imagenet import imagenet_classes
from convmixer_tf.preprocessing.imagenet import normalize
from convmixer_tf.preprocessing.imagenet import preprocess_input

__all__ = [
    "CIFAR10_CLASSES",
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "class_names",
    "decode_predictions",
    "imagenet_classes",
    "match_classes",
    "normalize",
    "preprocess_input",
]
