"""The layers of a ConvMixer, for every Keras backend."""

from convmixer_tf.layers.convmixer_block import ConvMixerBlock
from convmixer_tf.layers.initializers import CovarianceInitializer
from convmixer_tf.layers.old_names import BatchNormalization  # noqa: F401
from convmixer_tf.layers.old_names import DepthwiseConv2D  # noqa: F401
from convmixer_tf.layers.patch_embed import PatchEmbed

__all__ = ["ConvMixerBlock", "CovarianceInitializer", "PatchEmbed"]
