"""Training on one or more devices, with Keras on TensorFlow."""

from convmixer_tf.deprecation import renamed
from convmixer_tf.models import save_model
from convmixer_tf.training.checkpoint import CheckpointStore
from convmixer_tf.training.classifier import steps_per_epoch
from convmixer_tf.training.classifier import train_classifier
from convmixer_tf.training.config import TrainConfig
from convmixer_tf.training.evaluation import evaluate_function
from convmixer_tf.training.finetune import finetune
from convmixer_tf.training.fit_checkpoints import FitCheckpoints
from convmixer_tf.training.strategy import make_strategy
from convmixer_tf.training.trainer import train

__all__ = [
    "CheckpointStore",
    "FitCheckpoints",
    "TrainConfig",
    "evaluate_function",
    "finetune",
    "make_strategy",
    "save_model",
    "steps_per_epoch",
    "train",
    "train_classifier",
]

__getattr__ = renamed(
    __name__,
    {
        "Scores": "evaluation.Scores",
        "Evaluator": "evaluation.Evaluator",
        "Tally": "evaluation.ScoreAccumulator",
        "evaluation_inputs": "classifier.evaluation_inputs",
    },
)
