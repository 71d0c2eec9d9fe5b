"""From a Keras model to files that other runtimes execute."""

from convmixer_tf.export.litert import LiteRTModel
from convmixer_tf.export.tflite import export_tflite

__all__ = ["LiteRTModel", "export_tflite"]
