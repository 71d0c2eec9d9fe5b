"""The settings of a training run, apart from its model and its data."""

import dataclasses
import math

from convmixer_tf.data.validation import check_non_negative_integer
from convmixer_tf.validation import check_positive_integer

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
LOSSES = ("softmax", "sigmoid", "focal")
OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("piecewise", "cosine", "constant")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The settings of a run. The defaults are the authors' for ImageNet.

    Source: the command in https://github.com/locuslab/convmixer and the
    defaults of the timm fork that it runs.

    Attributes:
        epochs: Integer, passes over the data.
        steps_per_epoch: Integer, updates of the weights per epoch.
        batch_size: Integer, images per update, over all replicas and
            accumulated batches.
        accumulation_steps: Integer, the number of batches per update. Each
            batch has `batch_size / accumulation_steps` images.
        learning_rate: The peak of the schedule.
        loss: `"softmax"` for cross-entropy over exclusive classes, `"sigmoid"`
            for binary cross-entropy in multi-label classification,
            `"focal"` for the binary focal loss, which gives little weight to
            outputs that are already right.
        class_weight: `"balanced"` weights the classes equally in the loss,
            however many images each has. `None` weights the images equally.
        optimizer: `"adamw"`, or `"muon"`. With `"muon"`, Muon trains the
            kernels of 1 x 1 convolutions and AdamW all other weights.
        muon_learning_rate: The peak of Muon's schedule, if `optimizer` is
            `"muon"`.
        schedule: `"piecewise"` is the authors' schedule: linear from 0 to the
            peak at 2/5 of the epochs, to a twentieth of the peak at 4/5, to 0
            at the end. `"cosine"` is a linear warm-up, then half a cosine.
            `"constant"` is constant.
        warmup_epochs: Epochs of linear warm-up for `"cosine"`.
        final_learning_rate: Final learning rate of `"cosine"`.
        beta_1: Decay of the gradient's running mean, per update.
        beta_2: Decay of the squared gradient's running mean, per update.
        epsilon: Added to the root of the latter, as in PyTorch.
        weight_decay: Fraction of a weight that is subtracted from it per
            update, times the learning rate.
        decay_all: Boolean, whether to also decay biases and the scales and
            offsets of normalizations.
        layer_decay: Factor on the learning rate from one block to the previous
            block. 1 uses the same rate everywhere. Typical values for
            fine-tuning are 0.65 to 0.9.
        distillation_weight: Weight of the teacher in the loss, if there is one.
            The labels have the remaining weight.
        distillation_temperature: Divisor of the logits in the comparison of
            teacher and student.
        clip_norm: Maximum global L2 norm of the gradient averaged over
            replicas, or `None`.
        precision: `"float32"`, `"bfloat16"`, `"float16"` (with a loss scale) or
            `"auto"`. `"auto"` is bfloat16 on a TPU and on a GPU that supports
            it, float16 on an older GPU, and float32 on a CPU.
        sync_batch_norm: Boolean, whether batch normalizations use the whole
            batch instead of a replica's part.
        ema_decay: Decay of the weights' running mean, per update. The mean is
            then evaluated and saved. `None` disables it.
        seed: Integer, the seed of all randomness.
        jit_compile: Boolean, whether XLA compiles the evaluation and the
            update. With several replicas, it compiles each replica's loss and
            gradient instead of the whole update. `None` enables XLA on GPUs,
            unless `sync_batch_norm` is used with several replicas.
        save_every: Integer, updates between checkpoints. There is also a
            checkpoint at the end of each epoch.
        steps_per_call: Integer, updates per call from Python. Waiting for
            Python costs time on a TPU or a fast GPU. A stop signal takes effect
            after a call. A call ends earlier when a checkpoint, a log line or
            the end of an epoch is due.
        keep: Integer, the number of latest checkpoints to keep. The best one is
            also kept.
        log_every: Integer, updates between two log lines.
        profile_steps: Pair of integers, the first update to profile (at least
            2) and the first update after the profile, or `None`.
        tensorboard: Boolean, whether to write TensorBoard's event files.

    Raises:
        ValueError: If a value is out of range or contradicts another.
    """

    epochs: int = 150
    steps_per_epoch: int = 2001  # 1,281,167 images / 640
    batch_size: int = 640  # 64 on each of 10 GPUs
    accumulation_steps: int = 1
    learning_rate: float = 0.01
    loss: str = "softmax"
    class_weight: str | None = None
    optimizer: str = "adamw"
    muon_learning_rate: float = 0.02
    schedule: str = "piecewise"
    warmup_epochs: float = 0.0
    final_learning_rate: float = 0.0
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-3  # the authors' --opt-eps
    weight_decay: float = 2e-5  # the fork's default
    decay_all: bool = False
    layer_decay: float = 1.0
    distillation_weight: float = 0.5
    distillation_temperature: float = 2.0
    clip_norm: float | None = 1.0
    precision: str = "auto"
    sync_batch_norm: bool = False
    ema_decay: float | None = None
    seed: int = 0
    jit_compile: bool | None = None
    save_every: int = 1000
    steps_per_call: int = 1
    keep: int = 3
    log_every: int = 50
    profile_steps: tuple[int, int] | None = None
    tensorboard: bool = True

    def __post_init__(self):
        for name in (
            "epochs",
            "steps_per_epoch",
            "batch_size",
            "accumulation_steps",
            "save_every",
            "steps_per_call",
            "keep",
            "log_every",
        ):
            check_positive_integer(name, getattr(self, name))
        check_non_negative_integer("seed", self.seed)
        for name in (
            "learning_rate",
            "muon_learning_rate",
            "epsilon",
            "distillation_temperature",
        ):
            value = getattr(self, name)
            _check(name, value, value > 0, "above 0")
        for name in ("weight_decay", "warmup_epochs", "final_learning_rate"):
            value = getattr(self, name)
            _check(name, value, value >= 0, "at least 0")
        for name in ("beta_1", "beta_2"):
            value = getattr(self, name)
            _check(name, value, 0 <= value < 1, "at least 0 and below 1")
        for name in (
            "layer_decay",
            "ema_decay",
            "distillation_weight",
            "clip_norm",
        ):
            value = getattr(self, name)
            top = math.inf if name == "clip_norm" else 1
            if value is not None:
                _check(name, value, 0 < value <= top, f"above 0, up to {top}")
        _check_choice("loss", self.loss, LOSSES)
        if self.class_weight is not None:
            _check_choice("class_weight", self.class_weight, ("balanced",))
        _check_choice("optimizer", self.optimizer, OPTIMIZERS)
        _check_choice("schedule", self.schedule, SCHEDULES)
        _check_choice("precision", self.precision, PRECISIONS)
        self._check_combinations()

    def _check_combinations(self):
        if self.batch_size % self.accumulation_steps:
            raise ValueError(
                "Argument `batch_size` must be a multiple of "
                f"`accumulation_steps`. Received: batch_size={self.batch_size},"
                f" accumulation_steps={self.accumulation_steps}"
            )
        if self.class_weight and self.loss != "softmax":
            raise ValueError(
                'Argument `class_weight` needs loss="softmax", of classes that '
                f"exclude each other. Received: loss={self.loss!r}"
            )
        if self.warmup_epochs and self.schedule != "cosine":
            raise ValueError(
                'Argument `warmup_epochs` needs schedule="cosine". Received: '
                f"warmup_epochs={self.warmup_epochs}, "
                f"schedule={self.schedule!r}"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                "Argument `warmup_epochs` must be less than `epochs`. "
                f"Received: warmup_epochs={self.warmup_epochs}, "
                f"epochs={self.epochs}"
            )
        window = self.profile_steps
        if window is not None and not 1 < window[0] < window[1]:
            raise ValueError(
                "Argument `profile_steps` must be the first step to profile, "
                "at least 2, and a later step. Received: "
                f"profile_steps={window}"
            )

    @property
    def total_steps(self):
        """Number of updates in the whole run."""
        return self.epochs * self.steps_per_epoch


# Settings that depend on the devices. Resuming with other values warns.
OF_THE_DEVICES = ("replicas", "computes_in", "jit_compile")

# Settings that may differ when a run is resumed. The weights do not depend on
# them, except for `model` and `weights`, which `starts_from` describes exactly.
NOT_PART_OF_THE_RESULT = (
    *OF_THE_DEVICES,
    "save_every",
    "steps_per_call",
    "keep",
    "log_every",
    "profile_steps",
    "tensorboard",
    "crop_fraction",
    "starts_from",
)


def _check(name, value, valid, expected):
    if not valid:
        raise ValueError(
            f"Argument `{name}` must be {expected}. Received: {name}={value!r}"
        )


def _check_choice(name, value, choices):
    _check(name, value, value in choices, f"one of {', '.join(choices)}")
