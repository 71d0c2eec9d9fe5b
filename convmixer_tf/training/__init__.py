"""Training on one device or many, with TensorFlow underneath Keras."""

from convmixer_tf.training.config import TrainConfig
from convmixer_tf.training.evaluation import Evaluator
from convmixer_tf.training.evaluation import Scores
from convmixer_tf.training.strategy import make_strategy
from convmixer_tf.training.trainer import train

__all__ = ["Evaluator", "Scores", "TrainConfig", "make_strategy", "train"]
