"""Our steps, on whatever backend Keras has."""

import importlib
import os

import keras
from keras import ops

from convmixer_tf import ConvMixer
from speed.cases import repeated

LEARNING_RATE = 1e-4  # small: nothing may overflow while the clock runs

_DEPTHWISE = os.environ.get("CONVMIXER_DEPTHWISE", "")

_backend = importlib.import_module(f"speed.{keras.backend.backend()}_backend")
set_up = _backend.set_up
free_memory = _backend.free_memory


def describe():
    """Names the device and the versions."""
    return {
        "backend": keras.backend.backend(),
        "keras": keras.__version__,
        **_backend.describe(),
    }


def build_model(case, model, pure=False):
    """Builds our model of a case, in its precision.

    Args:
        case: A `Case`.
        model: A `Model`.
        pure: Boolean, whether weights are of low precision too.

    Returns:
        A `keras.Model` from normalised images to logits.
    """
    mixed = case.dtype != "float32" and not pure
    keras.config.set_dtype_policy(f"{'mixed_' if mixed else ''}{case.dtype}")
    return ConvMixer(
        model.dim,
        model.depth,
        model.kernel_size,
        model.patch_size,
        model.activation,
        input_shape=(model.image_size, model.image_size, 3),
        classes=model.classes,
        classifier_activation=None,
        include_preprocessing=False,
    )


def build_step(case, model, batch_size, contestant):
    """Builds our step.

    Args:
        case: A `Case`.
        model: Its `Model`.
        batch_size: Integer, images a step.
        contestant: A `Contestant`.

    Returns:
        Function of a number of steps. It runs them to their end and returns
        the last one's logits, or its loss.
    """
    os.environ["CONVMIXER_DEPTHWISE"] = contestant.depthwise or _DEPTHWISE
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    network = build_model(case, model, contestant.pure)
    shape = (batch_size, model.image_size, model.image_size, 3)
    images = keras.random.normal(shape, dtype="float32")
    if contestant.pure:
        images = ops.cast(images, case.dtype)
    if case.step == "infer":
        step = _backend.infer(network, images, contestant.compiled)
    else:
        labels = keras.random.randint((batch_size,), 0, model.classes)
        optimizer = keras.optimizers.AdamW(LEARNING_RATE)
        optimizer.build(network.trainable_variables)
        step = _backend.train(
            network,
            optimizer,
            _mean_cross_entropy,
            images,
            labels,
            contestant.compiled,
        )
    return repeated(step, _backend.wait)


def build_ceiling(kind, dtype, size):
    """Builds what measures a device's limits.

    Args:
        kind: `"matrix"`, a product of two square matrices, or `"copy"`, the
            negative of a tensor: it is read once and written once.
        dtype: `"float32"` or `"bfloat16"`.
        size: Integer, side of the matrices, or bytes of the tensor.

    Returns:
        As `build_step`.
    """
    if kind == "copy":
        x = keras.random.normal((size // 4,), dtype="float32")
        return repeated(lambda: ops.negative(x), _backend.wait)
    x, y = (
        ops.cast(keras.random.normal((size, size), dtype="float32"), dtype)
        for _ in range(2)
    )
    return repeated(lambda: ops.matmul(x, y), _backend.wait)


def to_numpy(x):
    """Fetches what a step returns."""
    return ops.convert_to_numpy(ops.cast(x, "float32"))


def _mean_cross_entropy(labels, logits):
    losses = ops.sparse_categorical_crossentropy(
        labels, logits, from_logits=True
    )
    return ops.mean(losses)
