"""Flags that all training recipes have: data, devices, files."""

from absl import flags

from convmixer_tf import data
from convmixer_tf.training import make_strategy

_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where tensorflow-datasets keeps its data."
)
_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "auto",
    ["auto", "one", "mirrored", "multiworker", "tpu"],
    "On which devices to train.",
)
_TPU = flags.DEFINE_string(
    "tpu", None, "Name of a Cloud TPU. Default: this machine's, if it has one."
)
_TPU_ZONE = flags.DEFINE_string("tpu_zone", None, "Zone of that TPU.")
_TPU_PROJECT = flags.DEFINE_string("tpu_project", None, "Its project.")
_PRECISION = flags.DEFINE_enum(
    "precision",
    "auto",
    ["auto", "float32", "bfloat16", "float16"],
    "What to compute in.",
)
_LOSS = flags.DEFINE_enum(
    "loss",
    "softmax",
    ["softmax", "sigmoid", "focal"],
    "Images of several labels, or of none, need sigmoid or focal.",
)
_CLASS_WEIGHT = flags.DEFINE_enum(
    "class_weight",
    None,
    ["balanced"],
    "Have all classes count alike, however many images each has.",
)
_ACCUMULATION = flags.DEFINE_integer(
    "accumulation_steps", 1, "Batches per update; each is that much smaller."
)
_SYNC = flags.DEFINE_bool(
    "sync_batch_norm", False, "Normalize over all replicas, not over each."
)
_EMA = flags.DEFINE_float(
    "ema_decay", None, "Evaluate the weights' running mean of this decay."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of everything that is random.")
_DETERMINISTIC = flags.DEFINE_bool(
    "deterministic", False, "Repeat to the bit on a GPU, too, more slowly."
)
_STEPS = flags.DEFINE_integer(
    "steps_per_epoch", None, "Updates per epoch. Default: all images once."
)
_JIT = flags.DEFINE_bool(
    "jit_compile", None, "Let XLA compile the step. Default: on GPUs."
)
_SAVE_EVERY = flags.DEFINE_integer(
    "save_every", 1000, "Updates between checkpoints."
)
_STEPS_PER_CALL = flags.DEFINE_integer(
    "steps_per_call", 1, "Updates that the devices make without Python."
)
_KEEP = flags.DEFINE_integer("keep", 3, "Checkpoints to keep, and the best.")
_LOG_EVERY = flags.DEFINE_integer("log_every", 50, "Updates between log lines.")
_TENSORBOARD = flags.DEFINE_bool("tensorboard", True, "Write event files.")
_PROFILE = flags.DEFINE_list(
    "profile_steps", None, "First update to profile, and the first not to."
)


def open_datasets(name, *splits):
    """Opens labeled images.

    Args:
        name: What `data.open_dataset` takes.
        *splits: The splits to open.

    Returns:
        List of a data set for each split.

    Raises:
        FileNotFoundError: If the data are not there.
        ValueError: If a split is not.
    """
    return [_open_dataset(name, split) for split in splits]


def _open_dataset(name, split):
    try:
        return data.open_dataset(name, split, data_dir=_DATA_DIR.value)
    except ValueError as error:
        for flag in ("split", "eval_split", "train_split"):
            if flag in flags.FLAGS and flags.FLAGS[flag].value == split:
                raise ValueError(f"{error} (`--{flag}`)") from error
        raise


def strategy():
    """Makes the strategy that the flags name, before TensorFlow is touched.

    Several machines can only be joined at the start of a process, so call it
    before data are opened or a model is built.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        ValueError: If the machine lacks what the strategy needs.
    """
    return make_strategy(
        _STRATEGY.value,
        tpu=_TPU.value,
        zone=_TPU_ZONE.value,
        project=_TPU_PROJECT.value,
        deterministic=_DETERMINISTIC.value,
    )


def settings(default_steps):
    """Collects the arguments of `TrainConfig` that the flags here give.

    Args:
        default_steps: Integer, updates per epoch if no flag says otherwise.

    Returns:
        Dictionary.
    """
    return {
        "precision": _PRECISION.value,
        "loss": _LOSS.value,
        "class_weight": _CLASS_WEIGHT.value,
        "accumulation_steps": _ACCUMULATION.value,
        "sync_batch_norm": _SYNC.value,
        "ema_decay": _EMA.value,
        "seed": _SEED.value,
        "steps_per_epoch": given(_STEPS, default_steps),
        "jit_compile": _JIT.value,
        "save_every": _SAVE_EVERY.value,
        "steps_per_call": _STEPS_PER_CALL.value,
        "keep": _KEEP.value,
        "log_every": _LOG_EVERY.value,
        "tensorboard": _TENSORBOARD.value,
        "profile_steps": _PROFILE.value and _window(_PROFILE.value),
    }


def given(flag, default):
    """Returns the value of a flag, or the default if the flag is not given.

    Args:
        flag: What `flags.DEFINE_...` returns, of a flag that may be `None`.
        default: Any value.
    """
    return default if flag.value is None else flag.value


def _window(steps):
    if len(steps) != 2 or not all(step.strip().isdigit() for step in steps):
        raise ValueError(
            "--profile_steps must be two numbers of updates, such as 10,20. "
            f"Received: {','.join(steps)}"
        )
    return int(steps[0]), int(steps[1])
