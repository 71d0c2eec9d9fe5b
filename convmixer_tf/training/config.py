"""What defines a training run, apart from its model and its data."""

import dataclasses
import math

from convmixer_tf.data.validation import check_non_negative_integer
from convmixer_tf.validation import check_positive_integer

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
LOSSES = ("softmax", "sigmoid")
OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("piecewise", "cosine", "constant")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The settings of a run. The defaults are the authors', for ImageNet.

    Source: the command in https://github.com/locuslab/convmixer and the
    defaults of the timm fork that it runs.

    Attributes:
        epochs: Integer, passes over the data.
        steps_per_epoch: Integer, updates of the weights per epoch.
        batch_size: Integer, images per update, over all replicas and
            accumulated batches.
        accumulation_steps: Integer, how many batches make one update. Each
            then has `batch_size / accumulation_steps` images.
        learning_rate: The peak of the schedule.
        loss: `"softmax"`: cross-entropy of classes that exclude each other.
            `"sigmoid"`: binary cross-entropy, of classes that don't.
        optimizer: `"adamw"`, or `"muon"`: the kernels of 1 x 1 convolutions
            are trained by Muon, all else by AdamW.
        muon_learning_rate: The peak of the schedule for these kernels, if
            `optimizer` is `"muon"`.
        schedule: `"piecewise"`, the authors': linear from 0 to the peak at 2/5
            of the epochs, to a twentieth of it at 4/5, to 0 at the end.
            `"cosine"`: linear warm-up, then half a cosine. `"constant"`.
        warmup_epochs: Epochs of linear warm-up, for `"cosine"`.
        final_learning_rate: Where `"cosine"` ends.
        beta_1: Decay of the gradient's running mean, per update.
        beta_2: Decay of the squared gradient's running mean, per update.
        epsilon: Added to the root of the latter, as PyTorch does.
        weight_decay: Fraction of a weight that is subtracted from it per
            update, times the learning rate.
        decay_all: Boolean, whether to decay biases and the scales and offsets
            of the normalizations too.
        layer_decay: Factor of the learning rate from one block to the block
            before it. 1 treats all alike; fine-tuning likes 0.65 to 0.9.
        distillation_weight: Share of a teacher in the loss, if there is one;
            the labels have the rest.
        distillation_temperature: What the logits are divided by where those
            of the teacher and of the student are compared.
        clip_norm: The largest global L2 norm of the gradient averaged over
            replicas, or `None`.
        precision: `"float32"`, `"bfloat16"`, `"float16"` (with a loss scale)
            or `"auto"`: bfloat16 on a TPU and on a GPU that has it, float16
            on an older GPU, float32 on a CPU.
        sync_batch_norm: Boolean, whether the batch normalizations see the
            whole batch instead of a replica's part of it.
        ema_decay: Decay of the weights' running mean, per update, which is
            then what is evaluated. `None`: there is none.
        seed: Integer, from which everything random follows.
        jit_compile: Boolean, whether XLA compiles the update, of several
            replicas each one's loss and gradient, and the evaluation. `None`:
            on GPUs, unless `sync_batch_norm` goes over several.
        save_every: Integer, updates between checkpoints, apart from those at
            the end of each epoch.
        steps_per_call: Integer, how many updates the devices make before they
            wait for Python, which costs a TPU or a fast GPU time. A signal to
            stop waits for them. A call ends where a checkpoint, a line of the
            log or an epoch's end is due.
        keep: Integer, how many of the last checkpoints to keep. The best is
            kept besides.
        log_every: Integer, updates between two lines of the log.
        profile_steps: Pair of integers, the first update to profile (not the
            very first, 1) and the first not to, or `None`.
        tensorboard: Boolean, whether to write TensorBoard's event files.

    Raises:
        ValueError: If a value is out of range or does not go with another.
    """

    epochs: int = 150
    steps_per_epoch: int = 2001  # 1,281,167 images / 640
    batch_size: int = 640  # 64 on each of 10 GPUs
    accumulation_steps: int = 1
    learning_rate: float = 0.01
    loss: str = "softmax"
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
                "at least 2, and a later one. "
                f"Received: profile_steps={window}"
            )

    @property
    def total_steps(self):
        """Updates in the whole run."""
        return self.epochs * self.steps_per_epoch


# Of the devices. A run that goes on with others is told that it matters.
OF_THE_DEVICES = ("replicas", "computes_in", "jit_compile")

# What may differ when a run goes on: nothing else that the weights depend on,
# but for what `starts_from` says in words, as `model` and `weights` do.
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
