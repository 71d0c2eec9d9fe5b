"""Constants of data sets, preprocessing and labels."""

from convmixer_tf.deprecation import renamed
from convmixer_tf.preprocessing.cifar10 import CIFAR10_CLASSES
from convmixer_tf.preprocessing.cifar10 import CIFAR10_MEAN
from convmixer_tf.preprocessing.cifar10 import CIFAR10_STD
from convmixer_tf.preprocessing.class_matching import match_classes
from convmixer_tf.preprocessing.decoding import decode_predictions
from convmixer_tf.preprocessing.imagenet import IMAGENET_MEAN
from convmixer_tf.preprocessing.imagenet import IMAGENET_STD
from convmixer_tf.preprocessing.imagenet import normalize
from convmixer_tf.preprocessing.imagenet import preprocess_input

__all__ = [
    "CIFAR10_CLASSES",
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "decode_predictions",
    "match_classes",
    "normalize",
    "preprocess_input",
]

__getattr__ = renamed(
    __name__,
    {
        "class_names": "decoding.class_names",
        "imagenet_classes": "imagenet.imagenet_classes",
    },
)
