"""Quantization-aware training for int8 and int4 TFLite files.

tensorflow-model-optimization runs on Keras 2 only, so the training runs in a
process of its own. `config`, `exchange`, `graph` and `tuning` belong to the
caller's process; `worker`, `legacy_model`, `rounding` and `training` to the
other one.
"""

from convmixer_tf.deprecation import renamed
from convmixer_tf.export.qat.config import TuningConfig
from convmixer_tf.export.qat.tuning import fine_tune

__all__ = ["TuningConfig", "fine_tune"]

__getattr__ = renamed(
    __name__,
    {
        "METHODS": "config.METHODS",
    },
)
