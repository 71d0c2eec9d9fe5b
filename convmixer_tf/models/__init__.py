"""ConvMixer and its published variants, in `keras.applications`' style."""

from convmixer_tf.deprecation import renamed
from convmixer_tf.models.conversion import convert_weights
from convmixer_tf.models.convmixer import ConvMixer
from convmixer_tf.models.freezing import freeze_batch_norm
from convmixer_tf.models.open_model import open_model
from convmixer_tf.models.rebuilding import load_model
from convmixer_tf.models.rebuilding import save_model
from convmixer_tf.models.variants import ConvMixer256_8
from convmixer_tf.models.variants import ConvMixer512_16
from convmixer_tf.models.variants import ConvMixer768_32
from convmixer_tf.models.variants import ConvMixer1024_20
from convmixer_tf.models.variants import ConvMixer1536_20

__all__ = [
    "ConvMixer",
    "ConvMixer256_8",
    "ConvMixer512_16",
    "ConvMixer768_32",
    "ConvMixer1024_20",
    "ConvMixer1536_20",
    "convert_weights",
    "freeze_batch_norm",
    "load_model",
    "open_model",
    "save_model",
]

__getattr__ = renamed(
    __name__,
    {
        "VARIANTS": "variants.VARIANTS",
        "read_arguments": "rebuilding.read_arguments",
        "read_class_names": "additions.read_class_names",
        "find_model": "rebuilding.find_model",
        "read_crop_fraction": "additions.read_crop_fraction",
        "read_orientation": "additions.read_orientation",
    },
)
