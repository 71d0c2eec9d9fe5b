"""Exports Keras models to files for other runtimes."""

from convmixer_tf.deprecation import renamed
from convmixer_tf.export.android import export_android
from convmixer_tf.export.cards import HubCard
from convmixer_tf.export.deploy import deploy
from convmixer_tf.export.hub_layer import HubLayer
from convmixer_tf.export.hub_repository import push_to_hub
from convmixer_tf.export.litert import LiteRTModel
from convmixer_tf.export.metadata import read_metadata
from convmixer_tf.export.onnx_export import export_onnx
from convmixer_tf.export.pixel_range import with_pixel_range
from convmixer_tf.export.publish import publish
from convmixer_tf.export.saved_model import export_saved_model
from convmixer_tf.export.tfhub import export_tfhub
from convmixer_tf.export.tflite import export_tflite
from convmixer_tf.export.verification.limits import Limits
from convmixer_tf.export.verification.verify import verify
from convmixer_tf.export.web import export_web

__all__ = [
    "HubCard",
    "HubLayer",
    "Limits",
    "LiteRTModel",
    "deploy",
    "export_android",
    "export_onnx",
    "export_saved_model",
    "export_tfhub",
    "export_tflite",
    "export_web",
    "publish",
    "push_to_hub",
    "read_metadata",
    "verify",
    "with_pixel_range",
]

__getattr__ = renamed(
    __name__,
    {
        "Report": "verification.verify.Report",
        "TFLiteMetadata": "metadata.TFLiteMetadata",
        "write_metadata": "metadata.write_metadata",
        "DeployedBlock": "deploy.DeployedBlock",
        "Deployment": "deploy.Deployment",
        "artefact_card": "cards.artifact_card",
        "artifact_card": "cards.artifact_card",
        "default_limits": "verification.default_limits",
    },
)
