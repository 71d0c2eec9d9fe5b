"""How to fine-tune for a smaller file."""

import dataclasses

from convmixer_tf.validation import check_positive_integer

METHODS = ("quantize", "float", "prune", "cluster")

# Settings that do not change what comes out, so that a run may go on with
# others.
_INDIFFERENT = ("save_every", "log_every")


@dataclasses.dataclass(frozen=True)
class TuningConfig:
    """How to fine-tune for a smaller file.

    Attributes:
        method: `"quantize"` trains with weights, and for int8 with what the
            layers give, rounded as in the file. `"prune"` sets the smallest
            weights of the 1 x 1 convolutions to 0. `"cluster"` lets each of
            these kernels have few different values. `"float"` is the same
            training without any of it, to compare with.
        epochs: Integer, passes over the images.
        batch_size: Integer, images per update.
        learning_rate: Float, of Adam; it falls to 0 along a cosine.
        flip: Boolean, whether half of the images are mirrored.
        sparsity: Float, of `"prune"`: the fraction of weights that become 0,
            which grows during the first half of the training.
        clusters: Integer, of `"cluster"`: values per kernel.
        seed: Integer, of the order of the images and of the mirroring.
        threads: Integer, how many to compute with; 0 for all. With another
            number sums are rounded otherwise.
        save_every: Integer, updates between checkpoints.
        log_every: Integer, updates between lines of the log.
    """

    method: str = "quantize"
    epochs: int = 1
    batch_size: int = 64
    learning_rate: float = 1e-4
    flip: bool = True
    sparsity: float = 0.5
    clusters: int = 16
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
        for name, least in (("seed", 0), ("threads", 0), ("clusters", 2)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                value = least - 1
            if value < least:
                raise ValueError(
                    f"Argument `{name}` must be an integer of at least "
                    f"{least}. Received: {name}={getattr(self, name)!r}"
                )
        for name in ("learning_rate", "sparsity"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"Argument `{name}` must be in (0, 1). "
                    f"Received: {name}={getattr(self, name)!r}"
                )

    def decisive(self):
        """Returns the settings that decide what comes out, for JSON."""
        settings = dataclasses.asdict(self)
        return {k: v for k, v in settings.items() if k not in _INDIFFERENT}
