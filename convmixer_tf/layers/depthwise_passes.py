"""The three passes of a depthwise convolution, and the forms of each."""

import functools

import keras

from convmixer_tf.layers.depthwise_forms import FORMS
from convmixer_tf.layers.depthwise_forms import KERNEL_GRADIENTS
from convmixer_tf.layers.depthwise_forms import flipped
from convmixer_tf.layers.depthwise_forms import native

PASSES = ("forward", "input_gradient", "kernel_gradient")


def backend_module():
    """Gives the module with the gradients of Keras' backend.

    Returns:
        The module; None for PyTorch, whose gradients are its own.
    """
    if keras.backend.backend() == "tensorflow":
        from convmixer_tf.layers import tensorflow_depthwise as module
    elif keras.backend.backend() == "jax":
        from convmixer_tf.layers import jax_depthwise as module
    else:
        module = None
    return module


def forms_of(name):
    """Lists the forms in which a pass can be computed.

    Args:
        name: One of `PASSES`.

    Returns:
        Dictionary from names to functions of (x, kernel) for `"forward"`, of
        (dy, kernel) for `"input_gradient"` and of (x, dy, kernel_size) for
        `"kernel_gradient"`. A form that can't be had here is listed, too: it
        raises `NotImplementedError`.
    """
    if name == "forward":
        return dict(FORMS)
    module = backend_module()
    if name == "kernel_gradient":
        forms = dict(KERNEL_GRADIENTS)
        own = {"native": module.native_kernel_gradient} if module else {}
        return {**own, **forms}
    forms = {
        form: functools.partial(_with_flipped_kernel, function)
        for form, function in {**FORMS, "flipped": native}.items()
        if form != "native"
    }
    own = {"native": module.native_input_gradient} if module else {}
    return {**own, **forms}


def _with_flipped_kernel(convolve, dy, kernel):
    return convolve(dy, flipped(kernel))
