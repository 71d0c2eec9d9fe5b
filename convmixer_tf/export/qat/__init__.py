"""Quantization-aware training for int8 and int4 TFLite files.

tensorflow-model-optimization runs only on Keras 2, so the training runs in a
separate process. `config`, `exchange`, `graph` and `tuning` belong to the
caller's process; `worker`, `legacy_model`, `rounding` and `training` to the
worker process.
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
