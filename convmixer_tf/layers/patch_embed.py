"""The stem, which turns an image into a grid of embedded patches."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
from keras import activations
from keras import layers

from convmixer_tf.layers.conv_act_norm import batch_norm
from convmixer_tf.layers.conv_act_norm import conv_act_norm
from convmixer_tf.layers.freezing import frozen_names
from convmixer_tf.layers.initializers import torch_uniform
from convmixer_tf.layers.validation import channels_of
from convmixer_tf.layers.validation import check_positive_integer


@keras.saving.register_keras_serializable("convmixer_tf")
class PatchEmbed(layers.Layer):
    """Cuts an image into patches and embeds each of them.

    It computes `norm(activation(conv(image)))`. The convolution's kernel size
    and stride are the patch size, so patches do not overlap. Pixels beyond the
    last whole patch are not used. The activation comes before the
    normalization.

    Reference: Trockman and Kolter, "Patches Are All You Need?",
    https://arxiv.org/abs/2201.09792

    Args:
        dim: Integer, the number of channels of an embedded patch.
        patch_size: Integer, the side of a patch, in pixels.
        activation: Any Keras activation, as a name or a function. `"gelu"` is
            the exact GELU.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to
            `keras.config.image_data_format()`.
        frozen: Names of the stem's layers, `"conv"` or `"norm"`, that stay
            frozen while the stem is trained. `models.freeze_batch_norm` sets
            this for a whole model.
        **kwargs: The arguments of every `keras.layers.Layer`: `name`, `dtype`,
            `trainable`.

    Input shape:
        (batch, height, width, channels), in pixels. For `"channels_first"`:
        (batch, channels, height, width).

    Output shape:
        (batch, height // patch_size, width // patch_size, dim), in patches.
        For `"channels_first"`: (batch, dim, height // patch_size,
        width // patch_size).

    Raises:
        ValueError: If `dim` or `patch_size` is not a positive integer, or if
            the image has no static number of channels.

    Example:

    ```python
    patches = PatchEmbed(dim=64, patch_size=7)(np.zeros((1, 224, 224, 3)))
    patches.shape  # (1, 32, 32, 64)
    ```
    """

    def __init__(
        self,
        dim: int,
        patch_size: int,
        activation: str | Callable = "gelu",
        data_format: str | None = None,
        frozen: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        check_positive_integer("dim", dim)
        check_positive_integer("patch_size", patch_size)
        super().__init__(**kwargs)
        self.dim = dim
        self.patch_size = patch_size
        self.activation = activations.get(activation)
        self.data_format = data_format or keras.config.image_data_format()
        self.frozen = tuple(frozen)

    def build(self, input_shape):
        channels = channels_of(input_shape, self.data_format)
        fan_in = self.patch_size**2 * channels
        self.conv = layers.Conv2D(
            self.dim,
            self.patch_size,
            strides=self.patch_size,
            kernel_initializer=torch_uniform(fan_in),
            bias_initializer=torch_uniform(fan_in),
            data_format=self.data_format,
            dtype=self.dtype_policy,
            name="conv",
        )
        self.norm = batch_norm(self.data_format, self.dtype_policy, "norm")
        self.conv.build(input_shape)
        self.norm.build(self.conv.compute_output_shape(input_shape))
        for layer in (self.conv, self.norm):
            layer.trainable = self.trainable and layer.name not in self.frozen

    def call(self, inputs, training=None):
        return conv_act_norm(
            inputs, self.conv, self.activation, self.norm, training
        )

    def compute_output_shape(self, input_shape):
        shape = list(input_shape)
        first = self.data_format == "channels_first"
        for axis in (2, 3) if first else (1, 2):
            if shape[axis] is not None:
                shape[axis] //= self.patch_size
        shape[1 if first else 3] = self.dim
        return tuple(shape)

    def get_config(self):
        return {
            **super().get_config(),
            "dim": self.dim,
            "patch_size": self.patch_size,
            "activation": activations.serialize(self.activation),
            "data_format": self.data_format,
            "frozen": frozen_names(self, "conv", "norm"),
        }
