"""The ConvMixer block: spatial mixing, then channel mixing."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
from keras import activations
from keras import initializers
from keras import layers
from keras import ops

from convmixer_tf.layers.conv_act_norm import batch_norm
from convmixer_tf.layers.conv_act_norm import conv_act_norm
from convmixer_tf.layers.conv_act_norm import move_statistics
from convmixer_tf.layers.conv_act_norm import pure_conv_act_norm
from convmixer_tf.layers.conv_act_norm import recomputed
from convmixer_tf.layers.freezing import frozen_names
from convmixer_tf.layers.initializers import torch_uniform
from convmixer_tf.layers.validation import channels_of
from convmixer_tf.layers.validation import check_positive_integer
from convmixer_tf.layers.validation import check_rate


@keras.saving.register_keras_serializable("convmixer_tf")
class ConvMixerBlock(layers.Layer):
    """One ConvMixer block, which keeps the shape of its input.

    A depthwise convolution with a large kernel mixes locations. It has a
    residual connection. A 1 x 1 convolution then mixes channels, without a
    residual connection. Each convolution is followed by the activation and then
    by the normalization:

        x = x + norm(activation(depthwise(x)))
        x = norm(activation(pointwise(x)))

    Reference: Trockman and Kolter, "Patches Are All You Need?",
    https://arxiv.org/abs/2201.09792

    Args:
        kernel_size: Integer, the side of the depthwise kernel, in patches.
        activation: Any Keras activation, as a name or a function. `"gelu"` is
            the exact GELU.
        drop_path: Fraction of the training images for which the residual branch
            is dropped (stochastic depth). For the other images the branch is
            scaled by 1 / (1 - drop_path).
        remat: Boolean, whether to keep only the block's input for the backward
            pass and to recompute the rest there. This takes less memory and
            more time; the gradients are the same.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to
            `keras.config.image_data_format()`.
        frozen: Names of the block's layers, such as `"depthwise_norm"`, that
            stay frozen while the block is trained. `models.freeze_batch_norm`
            sets this for a whole model.
        depthwise_initializer: Any Keras initializer for the depthwise kernel.
            Defaults to PyTorch's, uniform in +-1/kernel_size.
        **kwargs: The arguments of every `keras.layers.Layer`: `name`, `dtype`,
            `trainable`.

    Input shape:
        (batch, height, width, dim), in patches. For `"channels_first"`:
        (batch, dim, height, width).

    Output shape:
        Same as the input shape.

    Raises:
        ValueError: If `kernel_size` is not a positive integer, if `drop_path`
            is not in [0, 1), or if the input has no static number of
            channels.

    Example:

    ```python
    patches = np.zeros((1, 32, 32, 64))
    ConvMixerBlock(kernel_size=9)(patches).shape  # (1, 32, 32, 64)
    ```
    """

    def __init__(
        self,
        kernel_size: int,
        activation: str | Callable = "gelu",
        drop_path: float = 0.0,
        remat: bool = False,
        data_format: str | None = None,
        frozen: Sequence[str] = (),
        depthwise_initializer: str | keras.Initializer | None = None,
        **kwargs: Any,
    ) -> None:
        check_positive_integer("kernel_size", kernel_size)
        check_rate("drop_path", drop_path)
        super().__init__(**kwargs)
        self.kernel_size = kernel_size
        self.activation = activations.get(activation)
        self.drop_path = drop_path
        self.remat = remat
        self.data_format = data_format or keras.config.image_data_format()
        self.frozen = tuple(frozen)
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.residual_dropout = layers.Dropout(
            drop_path,
            noise_shape=(None, 1, 1, 1),
            dtype=self.dtype_policy,
            name="residual_dropout",
        )

    def build(self, input_shape):
        dim = channels_of(input_shape, self.data_format)
        common = {"data_format": self.data_format, "dtype": self.dtype_policy}
        self.depthwise = layers.DepthwiseConv2D(
            self.kernel_size,
            padding="same",
            depthwise_initializer=self.depthwise_initializer
            or torch_uniform(self.kernel_size**2),
            bias_initializer=torch_uniform(self.kernel_size**2),
            name="depthwise",
            **common,
        )
        self.depthwise_norm = batch_norm(name="depthwise_norm", **common)
        self.pointwise = layers.Conv2D(
            dim,
            1,
            kernel_initializer=torch_uniform(dim),
            bias_initializer=torch_uniform(dim),
            name="pointwise",
            **common,
        )
        self.pointwise_norm = batch_norm(name="pointwise_norm", **common)
        for layer in (
            self.depthwise,
            self.depthwise_norm,
            self.pointwise,
            self.pointwise_norm,
        ):
            layer.build(input_shape)
            layer.trainable = self.trainable and layer.name not in self.frozen

    def call(self, inputs, training=None):
        if self.remat and training:
            return self._keep_inputs_only(inputs)
        x = self.mix_space(inputs, training)
        return self.mix_channels(x, training)

    def _keep_inputs_only(self, inputs):
        # Not recomputed, because it is random.
        ones = ops.ones((ops.shape(inputs)[0], 1, 1, 1), inputs.dtype)
        kept = self.residual_dropout(ones, training=True)

        @recomputed
        def compute(inputs):
            x, first = pure_conv_act_norm(
                inputs, self.depthwise, self.activation, self.depthwise_norm
            )
            x = inputs + x * kept if self.drop_path else inputs + x
            x, second = pure_conv_act_norm(
                x, self.pointwise, self.activation, self.pointwise_norm
            )
            return [x, *first, *second]

        outputs, *statistics = compute(inputs)
        for norm in (self.depthwise_norm, self.pointwise_norm):
            if norm.trainable:
                move_statistics(norm, statistics.pop(0), statistics.pop(0))
        return outputs

    def mix_space(self, inputs, training=None):
        """Adds `norm(activation(depthwise(inputs)))` to `inputs`."""
        return conv_act_norm(
            inputs,
            self.depthwise,
            self.activation,
            self.depthwise_norm,
            training,
            shortcut=inputs,
            drop=self.residual_dropout,
        )

    def mix_channels(self, inputs, training=None):
        """Computes `norm(activation(pointwise(inputs)))`."""
        return conv_act_norm(
            inputs,
            self.pointwise,
            self.activation,
            self.pointwise_norm,
            training,
        )

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "activation": activations.serialize(self.activation),
            "drop_path": self.drop_path,
            "remat": self.remat,
            "data_format": self.data_format,
            "frozen": frozen_names(
                self,
                "depthwise",
                "depthwise_norm",
                "pointwise",
                "pointwise_norm",
            ),
            "depthwise_initializer": initializers.serialize(
                self.depthwise_initializer
            )
            if self.depthwise_initializer
            else None,
        }
