"""Common flags of the training recipes: data, devices, files."""

from absl import flags

from convmixer_tf import data
from convmixer_tf.training import make_strategy

_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Data directory of tensorflow-datasets."
)
_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "auto",
    ["auto", "one", "mirrored", "multiworker", "tpu"],
    "Distribution strategy.",
)
_TPU = flags.DEFINE_string(
    "tpu", None, "Name of a Cloud TPU. Default: this machine's, if any."
)
_TPU_ZONE = flags.DEFINE_string("tpu_zone", None, "Zone of that TPU.")
_TPU_PROJECT = flags.DEFINE_string("tpu_project", None, "Project of that TPU.")
_PRECISION = flags.DEFINE_enum(
    "precision",
    "auto",
    ["auto", "float32", "bfloat16", "float16"],
    "Precision of the computation.",
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
    "Weight all classes equally in the loss.",
)
_ACCUMULATION = flags.DEFINE_integer(
    "accumulation_steps", 1, "Batches per update; divides the batch size."
)
_SYNC = flags.DEFINE_bool(
    "sync_batch_norm", False, "Synchronize batch norm over replicas."
)
_EMA = flags.DEFINE_float(
    "ema_decay", None, "Decay of the weights' running mean; evaluates the mean."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of all randomness.")
_DETERMINISTIC = flags.DEFINE_bool(
    "deterministic",
    False,
    "Make runs on a GPU reproducible to the bit; slower.",
)
_STEPS = flags.DEFINE_integer(
    "steps_per_epoch", None, "Updates per epoch. Default: all images once."
)
_JIT = flags.DEFINE_bool(
    "jit_compile", None, "Compile the step with XLA. Default: on GPUs."
)
_SAVE_EVERY = flags.DEFINE_integer(
    "save_every", 1000, "Updates between checkpoints."
)
_STEPS_PER_CALL = flags.DEFINE_integer(
    "steps_per_call", 1, "Updates per call from Python."
)
_KEEP = flags.DEFINE_integer("keep", 3, "Checkpoints to keep, plus the best.")
_LOG_EVERY = flags.DEFINE_integer("log_every", 50, "Updates between log lines.")
_TENSORBOARD = flags.DEFINE_bool("tensorboard", True, "Write event files.")
_PROFILE = flags.DEFINE_list(
    "profile_steps", None, "First update to profile, and first one after."
)


def open_datasets(name, *splits):
    """Opens labeled images.

    Args:
        name: As for `data.open_dataset`.
        *splits: The splits to open.

    Returns:
        List of a data set for each split.

    Raises:
        FileNotFoundError: If the data does not exist.
        ValueError: If a split does not exist.
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
    """Creates the strategy in the flags, before other TensorFlow operations.

    Several machines can only be connected at the start of a process, so call it
    before data is opened or a model is built.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        ValueError: If the machine does not support the strategy.
    """
    return make_strategy(
        _STRATEGY.value,
        tpu=_TPU.value,
        zone=_TPU_ZONE.value,
        project=_TPU_PROJECT.value,
        deterministic=_DETERMINISTIC.value,
    )


def settings(default_steps):
    """Collects the arguments of `TrainConfig` from these flags.

    Args:
        default_steps: Integer, updates per epoch without the flag.

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
        flag: A flag from `flags.DEFINE_...` that may be `None`.
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
