"""In which form a layer computes its depthwise convolution, and why."""

import dataclasses
import logging
import math
import os

import keras

from convmixer_tf.layers import depthwise_probe
from convmixer_tf.layers.acceleration import jax_cpu
from convmixer_tf.layers.acceleration import plain
from convmixer_tf.layers.acceleration import tensorflow_cpu
from convmixer_tf.layers.depthwise_passes import PASSES
from convmixer_tf.layers.depthwise_passes import backend_module
from convmixer_tf.layers.depthwise_passes import forms_of

VARIABLE = "CONVMIXER_DEPTHWISE"

# TensorFlow's own kernel gradient is fast for up to 3 columns, and slows down
# tenfold from 4 on, whatever the shapes and the dtype.
FEWEST_COLUMNS = 4

# The input's gradient by the flipped kernel takes 0.65 to 0.98 of the time if
# one image's map is in this range; 0.8 to 1.2 below it, 1.3 above it.
FLIPPED_FROM = 2**18  # values
FLIPPED_UP_TO = 2**22  # bytes
BYTES = {"float32": 4, "bfloat16": 2}

# A matrix of `toeplitz_lines` grows with the square of a line.
LONGEST_LINE = 64  # patches

_set = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """The names of the forms of the three passes; see `depthwise_forms`."""

    forward: str = "native"
    input_gradient: str = "native"
    kernel_gradient: str = "native"


def set_depthwise(forward=None, input_gradient=None, kernel_gradient=None):
    """Sets in which form depthwise convolutions are computed, in this process.

    What is traced or compiled already stays as it is. Without it, the
    environment variable `CONVMIXER_DEPTHWISE` counts: up to three words,
    separated by commas; and without that, `"rule"`.

    Each word is `"rule"`, a fixed choice by backend and device that was
    measured; `"auto"`, a short measurement on this device, whose result is
    kept in a file; or the name of a form, such as `"native"`. A form that
    can't be had where it is wanted leaves the pass to `"native"`, with a
    warning in the log.

    Args:
        forward: Word, for the convolution itself. None goes back to the
            environment variable.
        input_gradient: Word, for the gradient with respect to the input.
            Defaults to `forward`, or to `"rule"` if it has no such form.
        kernel_gradient: Word, for that with respect to the kernel; likewise.

    Raises:
        ValueError: If a word is none of these.

    Example:

    ```python
    set_depthwise("auto")
    ```
    """
    global _set
    words = (forward, input_gradient, kernel_gradient)
    _set = None if words == (None,) * 3 else _checked(*words)


def _checked(forward, input_gradient=None, kernel_gradient=None):
    forward = "rule" if forward is None else forward
    words = {"forward": forward}
    for name, word in zip(
        PASSES[1:], (input_gradient, kernel_gradient), strict=True
    ):
        fitting = forward if forward in _words(name) else "rule"
        words[name] = fitting if word is None else word
    for name, word in words.items():
        if word not in _words(name):
            raise ValueError(
                f"The {name.replace('_', ' ')} of a depthwise convolution has "
                f"the forms {', '.join(_words(name))}. Received: {word!r}"
            )
    return Plan(**words)


def _words(name):
    return ["rule", "auto", *dict.fromkeys(["native", *forms_of(name)])]


def _wanted():
    if _set is not None:
        return _set
    words = os.environ.get(VARIABLE, "").split(",")
    if len(words) > len(PASSES):
        raise ValueError(
            f"The variable {VARIABLE} must have up to three words, separated "
            f"by commas. Received: {os.environ[VARIABLE]}"
        )
    return _checked(*(word.strip() or None for word in words))


def choose_plan(shape, kernel_size, dtype, trains):
    """Chooses the forms of a layer's three passes.

    Args:
        shape: Tuple (batch, height, width, dim), integers or None.
        kernel_size: (rows, columns).
        dtype: String, of input and kernel.
        trains: Boolean, whether the kernel's gradient may be asked for.
            If not, the gradients' forms don't matter, and are native.

    Returns:
        A `Plan`.
    """
    if plain():
        return Plan()
    fixed, wanted = _rule(shape, kernel_size, dtype), _wanted()
    chosen = {}
    for name in PASSES if trains else PASSES[:1]:
        word = getattr(wanted, name)
        if word == "auto" and _can_probe(shape):
            word = depthwise_probe.choose(name, shape, kernel_size, dtype)
        elif word in ("rule", "auto"):
            word = getattr(fixed, name)
        chosen[name] = word
    return Plan(**chosen)


def _rule(shape, kernel_size, dtype):
    """What was measured; see `recipes/results/depthwise`."""
    if kernel_size[1] < FEWEST_COLUMNS:
        return Plan()
    if tensorflow_cpu():
        flips = _flips(shape, kernel_size, dtype)
        return Plan("native", "flipped" if flips else "native", "big_filter")
    if jax_cpu():
        known = _known(shape[1:3]) and shape[2] <= LONGEST_LINE
        lines = "toeplitz_lines" if known else "shifted"
        return Plan("shifted", "shifted", lines)
    return Plan()


def _flips(shape, kernel_size, dtype):
    """Whether the flipped kernel is faster than TensorFlow's own gradient."""
    odd = all(size % 2 for size in kernel_size)
    if not odd or dtype not in BYTES or not _known(shape[1:]):
        return False
    values = math.prod(shape[1:])
    return values >= FLIPPED_FROM and values * BYTES[dtype] <= FLIPPED_UP_TO


def _known(sizes):
    """Whether all are numbers: neither None nor symbols, as JAX has them."""
    return all(isinstance(size, int) for size in sizes)


def _can_probe(shape):
    """Whether there is one shape, and one process, to measure for.

    PyTorch's gradients are its own. Several processes could choose
    differently, and then wait for each other.
    """
    if not _known(shape) or 0 in shape or "TF_CONFIG" in os.environ:
        return False
    if backend_module() is None:
        return False
    if keras.backend.backend() == "jax":
        import jax

        return jax.process_count() == 1
    return True


def convolve(x, kernel, plan, trains):
    """Computes a depthwise convolution with "same" padding by a plan.

    Args:
        x: Tensor (batch, height, width, dim).
        kernel: Tensor (rows, columns, dim, 1) of the same dtype.
        plan: A `Plan`.
        trains: Boolean, whether the kernel's gradient may be asked for. If
            not, any gradient is that of the forward pass's operations, where
            they have one.

    Returns:
        Tensor of the shape and dtype of `x`.
    """
    module = backend_module()
    forward = _available("forward", plan.forward)
    differentiable = not plan.forward.startswith("pallas")
    if module is None or (differentiable and not trains):
        return forward(x, kernel)
    gradients = (_available(name, getattr(plan, name)) for name in PASSES[1:])
    return module.with_gradients(forward, *gradients)(x, kernel)


def _available(name, form):
    """Gives a form's function, which is the native one's where it has none."""
    forms = forms_of(name)

    def compute(*arguments):
        try:
            return forms[form](*arguments)
        except NotImplementedError as reason:
            logging.getLogger(__name__).warning(
                "The %s of a depthwise convolution is native: there is no %s, "
                "as %s.",
                name.replace("_", " "),
                form,
                reason,
            )
            return forms["native"](*arguments)

    return compute
