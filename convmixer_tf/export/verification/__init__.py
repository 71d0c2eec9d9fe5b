"""Verifies that an exported file computes the same as its model."""

from convmixer_tf.deprecation import renamed
from convmixer_tf.export.verification.runtimes import Runtime
from convmixer_tf.export.verification.runtimes import open_runtime
from convmixer_tf.export.verification.runtimes import predict
from convmixer_tf.export.verification.verify import compare_classifiers

__all__ = [
    "Runtime",
    "compare_classifiers",
    "open_runtime",
    "predict",
]

__getattr__ = renamed(
    __name__,
    {
        "MIN_IMAGES": "verify.MIN_IMAGES",
        "RUNTIMES": "runtimes.RUNTIMES",
    },
)
