"""The layers that a ConvMixer is made of, on every Keras backend."""

from convmixer_tf.layers.batch_normalization import BatchNormalization
from convmixer_tf.layers.convmixer_block import ConvMixerBlock
from convmixer_tf.layers.depthwise import DepthwiseConv2D
from convmixer_tf.layers.depthwise_plan import set_depthwise
from convmixer_tf.layers.patch_embed import PatchEmbed

__all__ = [
    "BatchNormalization",
    "ConvMixerBlock",
    "DepthwiseConv2D",
    "PatchEmbed",
    "set_depthwise",
]
