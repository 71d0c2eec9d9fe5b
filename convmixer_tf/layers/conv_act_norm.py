"""Convolution, activation, batch normalisation: ConvMixer's one motif."""

import keras

from convmixer_tf.layers.acceleration import activate
from convmixer_tf.layers.batch_normalization import BatchNormalization


def batch_norm(data_format, dtype, name):
    """Builds a batch normalisation with PyTorch's constants.

    Args:
        data_format: `"channels_last"` or `"channels_first"`.
        dtype: The layer's dtype policy.
        name: The layer's name.

    Returns:
        A `BatchNormalization` over the channels.
    """
    # Keras' defaults, 1e-3 and 0.99, are not what the models trained with.
    return BatchNormalization(
        axis=1 if data_format == "channels_first" else -1,
        epsilon=1e-5,
        momentum=0.9,
        autocast=False,  # It computes in single precision anyway.
        dtype=dtype,
        name=name,
    )


def conv_act_norm(
    inputs, conv, activation, norm, training, remat=False, residual=None
):
    """Computes `norm(activation(conv(inputs)))`, in a residual or not.

    Args:
        inputs: Tensor, what `conv` takes.
        conv: A convolution layer, or a function of a tensor.
        activation: A function of a tensor, element by element.
        norm: A `BatchNormalization`.
        training: Boolean, whether to normalise with the batch's own
            statistics and to move the running ones.
        remat: Boolean, whether to keep nothing but `inputs` for the backward
            pass and to compute the rest again there.
        residual: A layer between the result and its sum with `inputs`, which
            in inference gives what it takes, such as a dropout. `None`: no
            sum.

    Returns:
        Tensor of the shape that `conv` gives.
    """
    if remat and training and norm.trainable:
        outputs = _recomputed(inputs, conv, activation, norm)
    else:
        x = conv(inputs)
        loop = None if training else norm.inference_loop(activation, x)
        if loop:
            return loop(x, inputs if residual else None)
        outputs = norm(activate(activation, x, training), training=training)
    if residual is None:
        return outputs
    return inputs + residual(outputs, training=training)


def _recomputed(inputs, conv, activation, norm):
    # `keras.RematScope` would run `norm` twice and so move its running
    # statistics twice. Here only pure functions are run again.
    @keras.remat
    def compute(inputs):
        return norm.normalize_batch(activate(activation, conv(inputs), True))

    outputs, mean, variance = compute(inputs)
    norm.move_statistics(mean, variance)
    return outputs
