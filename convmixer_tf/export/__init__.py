"""From a Keras model to files that other runtimes execute."""

from convmixer_tf.export.hub_card import HubCard
from convmixer_tf.export.hub_layer import HubLayer
from convmixer_tf.export.litert import LiteRTModel
from convmixer_tf.export.saved_model import export_saved_model
from convmixer_tf.export.tfhub import export_tfhub
from convmixer_tf.export.tflite import export_tflite

__all__ = [
    "HubCard",
    "HubLayer",
    "LiteRTModel",
    "export_saved_model",
    "export_tfhub",
    "export_tflite",
]
