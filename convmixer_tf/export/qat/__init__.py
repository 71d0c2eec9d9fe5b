"""Fine-tuning for smaller files, by tensorflow-model-optimization.

It knows only Keras 2, which therefore runs in a process of its own. `config`,
`exchange`, `graph` and `tuning` belong to the caller's process; `worker`,
`twin`, `methods`, `quantizers` and `loop` to the other.
"""

from convmixer_tf.export.qat.config import METHODS
from convmixer_tf.export.qat.config import TuningConfig
from convmixer_tf.export.qat.tuning import fine_tune

__all__ = ["METHODS", "TuningConfig", "fine_tune"]
