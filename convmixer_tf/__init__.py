"""ConvMixer ("Patches Are All You Need?") for Keras 3 and TensorFlow."""

from convmixer_tf import command_line  # noqa: F401  Before TensorFlow.
from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.layers import PatchEmbed
from convmixer_tf.models import ConvMixer
from convmixer_tf.models import ConvMixer256_8
from convmixer_tf.models import ConvMixer512_16
from convmixer_tf.models import ConvMixer768_32
from convmixer_tf.models import ConvMixer1024_20
from convmixer_tf.models import ConvMixer1536_20
from convmixer_tf.models import open_model
from convmixer_tf.preprocessing import decode_predictions
from convmixer_tf.preprocessing import preprocess_input

__version__ = "0.2.0"

__all__ = [
    "ConvMixer",
    "ConvMixer256_8",
    "ConvMixer512_16",
    "ConvMixer768_32",
    "ConvMixer1024_20",
    "ConvMixer1536_20",
    "ConvMixerBlock",
    "PatchEmbed",
    "decode_predictions",
    "open_model",
    "predict_images",
    "preprocess_input",
]


def __getattr__(name):
    if name != "predict_images":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Imported lazily, because building models does not need it.
    try:
        from convmixer_tf.inference import predict_images
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise ImportError(
            "`predict_images` reads image files with TensorFlow: pip install "
            "tensorflow. Without it, call `predict` of the model with pixels."
        ) from error
    return predict_images
