"""From image files and whatever classifies them to predictions."""

from convmixer_tf.deprecation import renamed
from convmixer_tf.inference.classification import Prediction
from convmixer_tf.inference.classification import classify
from convmixer_tf.inference.classification import predict_images
from convmixer_tf.inference.classifiers import Classifier
from convmixer_tf.inference.classifiers import load_classifier

__all__ = [
    "Classifier",
    "Prediction",
    "classify",
    "load_classifier",
    "predict_images",
]

__getattr__ = renamed(
    __name__,
    {
        "FORMATS": "formats.FORMATS",
        "find_images": "image_files.find_images",
        "judged": "classification.judged",
    },
)
