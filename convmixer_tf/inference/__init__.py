"""Classifies image files with models of any supported format."""

from convmixer_tf.deprecation import renamed
from convmixer_tf.inference.bulk import map_images
from convmixer_tf.inference.classification import predict_images

__all__ = ["map_images", "predict_images"]

__getattr__ = renamed(
    __name__,
    {
        "Classifier": "classifiers.Classifier",
        "Prediction": "classification.Prediction",
        "classify": "classification.classify",
        "load_classifier": "classifiers.load_classifier",
        "FORMATS": "formats.FORMATS",
        "find_images": "image_files.find_images",
        "judged": "classification.judged",
    },
)
