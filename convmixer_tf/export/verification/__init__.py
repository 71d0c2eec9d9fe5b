"""Does an exported file compute what its model does? Measured, not assumed."""

from convmixer_tf.export.verification.limits import Limits
from convmixer_tf.export.verification.limits import default_limits
from convmixer_tf.export.verification.runtimes import RUNTIMES
from convmixer_tf.export.verification.runtimes import open_runtime
from convmixer_tf.export.verification.verify import MIN_IMAGES
from convmixer_tf.export.verification.verify import Report
from convmixer_tf.export.verification.verify import verify

__all__ = [
    "MIN_IMAGES",
    "RUNTIMES",
    "Limits",
    "Report",
    "default_limits",
    "open_runtime",
    "verify",
]
