"""The settings of quantization-aware training."""

import dataclasses
import numbers

from convmixer_tf.data.validation import check_non_negative_integer
from convmixer_tf.validation import check_positive_integer

METHODS = ("quantize", "float")
QUANTIZATIONS = ("int8", "int4")

# Settings that do not change the result, so that a run may continue with
# other values.
_NOT_PART_OF_THE_RESULT = ("save_every", "log_every")


@dataclasses.dataclass(frozen=True)
class TuningConfig:
    """The settings of quantization-aware training.

    Attributes:
        method: `"quantize"` trains with numbers rounded as in the file.
            `"float"` is the same training without rounding, a control.
        epochs: Integer, passes over the images.
        batch_size: Integer, images per update.
        learning_rate: Float, the initial learning rate of Adam. It decays to
            0 along a cosine.
        flip: Boolean, whether to flip half of the images horizontally.
        seed: Integer, the seed of the order and the flips of the images.
        threads: Integer, the number of threads; 0 for one per core. The number
            changes how sums are rounded.
        save_every: Integer, updates between checkpoints.
        log_every: Integer, updates between log lines.

    Raises:
        ValueError: If a value is out of range.
    """

    method: str = "quantize"
    epochs: int = 1
    batch_size: int = 64
    learning_rate: float = 1e-4
    flip: bool = True
    seed: int = 0
    threads: int = 0
    save_every: int = 100
    log_every: int = 20

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(
                f"Argument `method` must be one of {METHODS}. "
                f"Received: method={self.method!r}"
            )
        for name in ("epochs", "batch_size", "save_every", "log_every"):
            check_positive_integer(name, getattr(self, name))
        for name in ("seed", "threads"):
            check_non_negative_integer(name, getattr(self, name))
        rate = self.learning_rate
        if not isinstance(rate, numbers.Real) or not 0 < rate < 1:
            raise ValueError(
                "Argument `learning_rate` must be a number between 0 and 1. "
                f"Received: learning_rate={rate!r}"
            )

    def result_settings(self):
        """Returns the settings that the result depends on, as a dictionary."""
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in _NOT_PART_OF_THE_RESULT
        }
