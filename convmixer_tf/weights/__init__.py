"""Published weights, and conversion of weights from and to other formats."""

from convmixer_tf.deprecation import renamed
from convmixer_tf.weights.loading import load_weights
from convmixer_tf.weights.packaged import read_facts
from convmixer_tf.weights.published import PUBLISHED_WEIGHTS
from convmixer_tf.weights.reading import read_weights
from convmixer_tf.weights.saving import save_timm_weights
from convmixer_tf.weights.saving import timm_state_dict

__all__ = [
    "PUBLISHED_WEIGHTS",
    "load_weights",
    "read_facts",
    "read_weights",
    "save_timm_weights",
    "timm_state_dict",
]

__getattr__ = renamed(
    __name__,
    {
        "infer_architecture": "checking.infer_architecture",
        "DATASETS": "published.DATASETS",
        "PublishedFile": "published.PublishedFile",
        "PublishedWeights": "published.PublishedWeights",
        "fetch_weights": "hub.fetch_weights",
        "Architecture": "checking.Architecture",
        "find_published": "published.find_published",
    },
)
