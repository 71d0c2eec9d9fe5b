"""Convolution, activation and batch normalization, used all over ConvMixer.

The layers are stock Keras layers and hold the weights. This module selects an
implementation for each operation; see `faster_than_keras`.
"""

import operator

import keras
from keras import layers
from keras import ops

from convmixer_tf.layers._fast.choice import faster_than_keras


def batch_norm(data_format, dtype, name):
    """Builds a batch normalization with PyTorch's constants.

    Args:
        data_format: `"channels_last"` or `"channels_first"`.
        dtype: The layer's dtype policy.
        name: The layer's name.

    Returns:
        A `keras.layers.BatchNormalization` over the channels.
    """
    # The models were trained with these, not with Keras' 1e-3 and 0.99.
    return layers.BatchNormalization(
        axis=1 if data_format == "channels_first" else -1,
        epsilon=1e-5,
        momentum=0.9,
        autocast=False,  # It always computes in single precision.
        dtype=dtype,
        name=name,
    )


def conv_act_norm(
    inputs,
    conv,
    activation,
    norm,
    training,
    shortcut=None,
    drop=None,
):
    """Computes `norm(activation(conv(inputs)))` and adds an optional shortcut.

    Args:
        inputs: Tensor (batch, height, width, channels), or (batch, channels,
            height, width) if the layers use `"channels_first"`.
        conv: A `keras.layers.Conv2D` or `DepthwiseConv2D`, built.
        activation: An element-wise function of a tensor.
        norm: A layer from `batch_norm`.
        training: Boolean, whether to normalize with batch statistics and to
            update the running statistics.
        shortcut: Tensor of the result's shape that is added to the result, or
            `None`.
        drop: Layer that is applied to the result before `shortcut` is added. In
            inference it must return its input, as dropout does.

    Returns:
        Tensor of the output shape of `conv`.
    """
    x = convolve(inputs, conv, training)
    fast = None if training else faster_than_keras()
    loop = fast and fast.inference_loop(x, activation, norm)
    if loop:
        return loop(x, shortcut)
    x = activate(x, activation, training)
    outputs = normalize(x, norm, training)
    if shortcut is None:
        return outputs
    return shortcut + drop(outputs, training=training)


def recomputed(function):
    """Wraps a function so that its gradient keeps only the argument.

    The backward pass calls `function` again. `keras.RematScope` would call
    layers again, and batch normalizations would update their running statistics
    twice.

    Args:
        function: Pure function of a tensor that returns a list of tensors. Only
            the first has a gradient.

    Returns:
        A function that returns the same.
    """
    return getattr(faster_than_keras(), "remat", keras.remat)(function)


def pure_conv_act_norm(inputs, conv, activation, norm):
    """Computes `conv_act_norm` in training, but moves no running statistics.

    The arguments are as for `conv_act_norm`.

    Returns:
        The result, and a list of the batch's mean and variance for
        `move_statistics`. The list is empty if `norm` is frozen.
    """
    x = convolve(inputs, conv, training=True)
    x = activate(x, activation, training=True)
    if not norm.trainable:
        return norm(x, training=False), []
    x, *statistics = normalize_batch(x, norm)
    return x, statistics


def convolve(x, conv, training):
    """Computes `conv(x)` with an accurate gradient of the bias."""
    dtype = conv.compute_dtype
    if keras.backend.standardize_dtype(x.dtype) != dtype:
        return conv(x)  # It has its own dtype policy and casts.
    with keras.name_scope(conv.name):
        # Recomputation calls no layer, so nothing else casts.
        kernel, bias = ops.cast(conv.kernel, dtype), ops.cast(conv.bias, dtype)
        fast = faster_than_keras()
        y = fast and fast.convolve(x, kernel, conv, training)
        if y is None:
            y = _convolve_by_keras(x, kernel, conv)
        return _add_bias(y, bias, conv.data_format, training)


def _convolve_by_keras(x, kernel, conv):
    if isinstance(conv, layers.DepthwiseConv2D):
        return ops.depthwise_conv(
            x, kernel, padding=conv.padding, data_format=conv.data_format
        )
    return conv.convolution_op(x, kernel)


def _add_bias(x, bias, data_format, training):
    # Keras 3.15's layers call `keras.ops.add`, which has two problems with
    # TensorFlow. In `"channels_first"`, it adds along the width if the width
    # equals the number of channels. On a CPU, it sums the bias gradient of
    # bfloat16 images in bfloat16: with 16,384 locations the error is 50 % or
    # more.
    if data_format == "channels_first":
        return x + ops.reshape(bias, (-1, 1, 1))
    if x.dtype != "bfloat16":
        return ops.add(x, bias)
    fast = faster_than_keras() if training else None
    add = fast.add_bias if fast else operator.add  # Accurate gradient.
    return add(x, bias)


def activate(x, activation, training):
    """Computes `activation(x)`, with the exact GELU in single precision.

    In inference, the fast GELU is not rounded to half precision because the
    normalization that follows computes in single precision.
    """
    fast = faster_than_keras()
    if not fast or activation is not keras.activations.gelu:
        return activation(x)
    return fast.trained_gelu(x) if training else fast.gelu(x)


def normalize(x, norm, training):
    """Computes `norm(x, training=training)`."""
    fast = faster_than_keras() if training and norm.trainable else None
    batch = fast and fast.normalize_batch(x, norm)
    if not batch:
        return norm(x, training=training)
    outputs, mean, variance = batch
    move_statistics(norm, mean, variance)
    return outputs


def normalize_batch(x, norm):
    """Returns the normalized batch, its mean and its variance."""
    fast = faster_than_keras()
    batch = fast and fast.normalize_batch(x, norm)
    if batch:
        return batch
    x = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
    axes = [axis for axis in range(4) if axis != norm.axis % 4]
    mean, variance = ops.moments(x, axes, synchronized=norm.synchronized)
    outputs = ops.batch_normalization(
        x,
        mean,
        variance,
        axis=norm.axis,
        offset=ops.cast(norm.beta, x.dtype),
        scale=ops.cast(norm.gamma, x.dtype),
        epsilon=norm.epsilon,
    )
    return ops.cast(outputs, norm.compute_dtype), mean, variance


def move_statistics(norm, mean, variance):
    """Updates the running statistics with a batch's, as Keras does."""
    for moving, batch in (
        (norm.moving_mean, mean),
        (norm.moving_variance, variance),
    ):
        old = ops.cast(moving, batch.dtype)
        moving.assign(old * norm.momentum + batch * (1 - norm.momentum))
