"""From a Keras model to files that other runtimes execute."""

from convmixer_tf.export.deployment import DeployedBlock
from convmixer_tf.export.deployment import Deployment
from convmixer_tf.export.deployment import deploy
from convmixer_tf.export.litert import LiteRTModel
from convmixer_tf.export.tflite import export_tflite

__all__ = [
    "DeployedBlock",
    "Deployment",
    "LiteRTModel",
    "deploy",
    "export_tflite",
]
