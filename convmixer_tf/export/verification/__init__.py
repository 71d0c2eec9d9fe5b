"""Does an exported file compute what its model does? Measured, not assumed."""

from convmixer_tf.export.verification.runtimes import RUNTIMES
from convmixer_tf.export.verification.runtimes import Runtime
from convmixer_tf.export.verification.runtimes import open_runtime
from convmixer_tf.export.verification.runtimes import predict
from convmixer_tf.export.verification.verify import MIN_IMAGES
from convmixer_tf.export.verification.verify import compare_classifiers

__all__ = [
    "MIN_IMAGES",
    "RUNTIMES",
    "Runtime",
    "compare_classifiers",
    "open_runtime",
    "predict",
]
