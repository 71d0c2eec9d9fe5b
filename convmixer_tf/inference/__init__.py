"""From image files and whatever classifies them to predictions."""

from convmixer_tf.inference.classification import Prediction
from convmixer_tf.inference.classification import classify
from convmixer_tf.inference.classification import judged
from convmixer_tf.inference.classifiers import Classifier
from convmixer_tf.inference.classifiers import load_classifier
from convmixer_tf.inference.formats import FORMATS
from convmixer_tf.inference.image_files import find_images

__all__ = [
    "FORMATS",
    "Classifier",
    "Prediction",
    "classify",
    "find_images",
    "judged",
    "load_classifier",
]
