"""Convolution, activation, batch normalisation: ConvMixer's one motif."""

import keras
from keras import layers
from keras import ops


def batch_norm(data_format, dtype, name):
    """Builds a batch normalisation with PyTorch's constants.

    Args:
        data_format: `"channels_last"` or `"channels_first"`.
        dtype: The layer's dtype policy.
        name: The layer's name.

    Returns:
        A `keras.layers.BatchNormalization` over the channels.
    """
    # Keras' defaults, 1e-3 and 0.99, are not what the models trained with.
    return layers.BatchNormalization(
        axis=1 if data_format == "channels_first" else -1,
        epsilon=1e-5,
        momentum=0.9,
        dtype=dtype,
        name=name,
    )


def conv_act_norm(inputs, conv, activation, norm, training, remat=False):
    """Computes `norm(activation(conv(inputs)))`.

    Args:
        inputs: Tensor, what `conv` takes.
        conv: A convolution layer.
        activation: A function of a tensor, element by element.
        norm: A `keras.layers.BatchNormalization`.
        training: Boolean, whether to normalise with the batch's own
            statistics and to move the running ones.
        remat: Boolean, whether to keep nothing but `inputs` for the backward
            pass and to compute the rest again there.

    Returns:
        Tensor of the shape that `conv` gives.
    """
    if not (remat and training and norm.trainable):
        return norm(activation(conv(inputs)), training=training)

    # `keras.RematScope` would run `norm` twice and so move its running
    # statistics twice. Here only pure functions are run again.
    @keras.remat
    def recomputed(inputs):
        x = activation(conv(inputs))
        x = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
        axes = [axis for axis in range(4) if axis != norm.axis % 4]
        mean, variance = ops.moments(
            x, axes=axes, synchronized=norm.synchronized
        )
        x = ops.batch_normalization(
            x,
            mean,
            variance,
            axis=norm.axis,
            offset=ops.cast(norm.beta, x.dtype),
            scale=ops.cast(norm.gamma, x.dtype),
            epsilon=norm.epsilon,
        )
        return ops.cast(x, norm.compute_dtype), mean, variance

    outputs, mean, variance = recomputed(inputs)
    for moving, batch in (
        (norm.moving_mean, mean),
        (norm.moving_variance, variance),
    ):
        old = ops.cast(moving, batch.dtype)
        moving.assign(old * norm.momentum + batch * (1 - norm.momentum))
    return outputs
