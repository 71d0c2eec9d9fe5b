"""From a Keras model to files that other runtimes execute."""

from convmixer_tf.export.litert import LiteRTModel
from convmixer_tf.export.metadata import TFLiteMetadata
from convmixer_tf.export.metadata import read_metadata
from convmixer_tf.export.metadata import write_metadata
from convmixer_tf.export.tflite import export_tflite

__all__ = [
    "LiteRTModel",
    "TFLiteMetadata",
    "export_tflite",
    "read_metadata",
    "write_metadata",
]
