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


def conv_act_norm(inputs, conv, activation, norm, training, remat=False):
    """Computes `norm(activation(conv(inputs)))`.

    Args:
        inputs: Tensor, what `conv` takes.
        conv: A convolution layer, or a function of a tensor.
        activation: A function of a tensor, element by element.
        norm: A `BatchNormalization`.
        training: Boolean, whether to normalise with the batch's own
            statistics and to move the running ones.
        remat: Boolean, whether to keep nothing but `inputs` for the backward
            pass and to compute the rest again there.

    Returns:
        Tensor of the shape that `conv` gives.
    """
    if not (remat and training and norm.trainable):
        x = activate(activation, conv(inputs), training)
        return norm(x, training=training)

    # `keras.RematScope` would run `norm` twice and so move its running
    # statistics twice. Here only pure functions are run again.
    @keras.remat
    def recomputed(inputs):
        return norm.normalize_batch(
            activate(activation, conv(inputs), training)
        )

    outputs, mean, variance = recomputed(inputs)
    norm.move_statistics(mean, variance)
    return outputs
